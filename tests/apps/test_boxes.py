import numpy as np

from apps.boxes import Kind, Marks, boxes_layer, draw_marks, legend
from vision_core.images.captions import Caption
from vision_core.images.drawing import ORANGE

KIND = Kind(name="<lost>", colour=ORANGE, dashes="7 5")
BOXES = np.array([[10, 20, 30, 50], [0, 0, 5, 5]], np.float32)
NONE = Marks(kind=KIND, boxes=BOXES[:0], texts=[])


def test_draw_marks__no_box_leaves_the_picture_as_it_is() -> None:
    image = np.random.default_rng(0).integers(0, 255, (700, 640, 3)).astype(np.uint8)
    drawn = draw_marks(image, [NONE], Caption(headline="none", model="a"))
    np.testing.assert_array_equal(drawn[:700, :640], image)
    assert legend([NONE]) == ""


def test_draw_marks__boxes_are_where_they_are_in_a_picture_that_is_enlarged() -> None:
    image = np.full((160, 320, 3), 100, np.uint8)
    marks = Marks(kind=KIND, boxes=np.array([[80, 40, 240, 120]], np.float32), texts=[""])
    drawn = draw_marks(image, [marks], Caption(headline="one", model="a"))
    assert drawn.shape[1] == 1280
    rows, columns = np.nonzero((drawn[:640, :1280] == ORANGE).all(axis=2))
    assert abs(columns.min() - 320) <= 4 and abs(columns.max() - 960) <= 4
    assert abs(rows.min() - 160) <= 4 and abs(rows.max() - 480) <= 4


def test_layer__edges_dashes_and_texts_and_no_markup_of_names() -> None:
    layer = boxes_layer([Marks(kind=KIND, boxes=BOXES, texts=["<b> 0.9", ""])], (100, 200))
    assert 'viewBox="0 0 200 100"' in layer
    assert 'x="10.00" y="20.00" width="20.00" height="30.00"' in layer
    assert layer.count("<rect") == 4 and layer.count('stroke-dasharray="7 5"') == 2
    assert "&lt;b&gt; 0.9" in layer and "<b>" not in layer
    assert '<text x="11.00"' in layer and "text-anchor" not in layer
    at_the_edge = Marks(kind=KIND, boxes=np.array([[190, 20, 210, 50]], np.float32), texts=["winter coat"])
    assert '<text x="199.00" text-anchor="end"' in boxes_layer([at_the_edge], (100, 200))
    crowd = Marks(kind=KIND, boxes=np.tile(BOXES[:1], (26, 1)), texts=["tree"] * 26)
    assert "<text" not in boxes_layer([crowd], (100, 200))


def test_legend__kinds_that_are_there() -> None:
    told = legend([Marks(kind=KIND, boxes=BOXES, texts=["", ""]), NONE])
    assert told.count("<span>") == 1 and "&lt;lost&gt; (2)" in told and "dashed" in told
