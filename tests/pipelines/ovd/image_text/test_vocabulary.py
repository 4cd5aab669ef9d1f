"""Names typed and listed, and embeddings that are kept under a fingerprint."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from pipelines.ovd.image_text.prompts import ensemble, expand
from pipelines.ovd.image_text.vocabulary import (
    Vocabulary,
    check_memory,
    embed_vocabulary,
    parse_names,
    read_names,
    spoken_name,
)
from tests.pipelines.ovd.table import TableModel
from vision_core.errors import ConfigError, DataError, EnvironmentFault


def test_parse__blanks_and_repeated_names() -> None:
    found = parse_names(" cat, folding  chair,Cat,,dog ")
    assert found.names == ("cat", "folding chair", "dog")
    assert found.notes == (
        "the typed names: names that stand there more than once, merged: 'Cat'.",
        "the typed names: 1 empty entries left out.",
    )


def test_parse__spellings_of_one_name_are_one() -> None:
    """They have one embedding: each would get half of the score."""
    found = parse_names(
        "folding_chair, Folding chair, caf\u00e9, cafe\u0301, cat\u200b, cat, coffee/tea, coffee or tea"
    )
    assert found.names == ("folding_chair", "caf\u00e9", "cat", "coffee/tea")
    assert "merged: 'Folding chair', 'caf\u00e9', 'cat', 'coffee or tea'" in found.notes[0]
    assert parse_names("bow (weapon), bow (ribbon)").names == ("bow (weapon)", "bow (ribbon)")


def test_parse__characters_that_are_none() -> None:
    assert parse_names("cat\x00, \x1b[31mdog\x07, \x1b").names == ("cat", "[31mdog")


@pytest.mark.parametrize("text", ["", " , ,", "\n", "\u200b,\x00"])
def test_parse__nothing_to_detect(text: str) -> None:
    with pytest.raises(ConfigError, match="no name to detect"):
        parse_names(text)


def test_parse__words_that_an_english_model_may_not_know() -> None:
    [note] = parse_names("Hund, Katze, 猫, 🐈").notes
    assert note == "warning: the text model was trained on English; it may not know '猫', '🐈'."


def test_parse__a_list_of_another_program_is_told() -> None:
    found = parse_names("cat; dog, mouse")
    assert found.names == ("cat; dog", "mouse")
    assert found.notes == ("warning: commas alone set names apart; read as one name each: 'cat; dog'.",)


def test_read__a_list_with_synonyms_and_a_byte_order_mark(tmp_path: Path) -> None:
    path = tmp_path / "names.txt"
    path.write_bytes("\ufeffcouch, sofa, settee\r\n\r\ncup\r\nCouch,divan\r\n".encode())
    found = read_names(path)
    assert found.names == ("couch", "cup")
    assert found.synonyms == (("couch", "sofa", "settee", "divan"), ("cup",))
    assert "merged: 'Couch'" in found.notes[0]
    assert "1 empty entries" in found.notes[1]


def test_read__no_text_and_no_file(tmp_path: Path) -> None:
    (tmp_path / "names.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match="no UTF-8 text"):
        read_names(tmp_path / "names.txt")
    with pytest.raises(DataError, match="cannot be read: no such file"):
        read_names(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("name", "spoken"),
    [("hair_drier", "hair drier"), ("bow_(weapon)", "bow"), ("coffee/tea", "coffee or tea"), ("tie", "tie")],
)
def test_spoken__names_of_lvis(name: str, spoken: str) -> None:
    assert spoken_name(name) == spoken


def test_prompts__names_of_lvis_as_one_says_them_and_apart() -> None:
    found = Vocabulary.of_classes(["hair_drier", "crab_(animal)", "bow_(weapon)", "bow_(ribbon)", "coffee/tea", "(x)"])
    said = ["hair drier", "crab", "bow (weapon)", "bow (ribbon)", "coffee or tea", "(x)"]
    assert found.prompts() == [list(expand(name)) for name in said]
    assert found.notes == (
        "2 names are embedded as one says them: 'crab_(animal)' as 'crab', 'coffee/tea' as 'coffee or tea'.",
    )
    assert Vocabulary.of_classes(["tie", "hair_drier"]).notes == ()
    typed = parse_names("bow (weapon), crab (animal)")
    trained = ("bow_(ribbon)", "bow_(weapon)", "crab_(animal)")
    assert [lines[3] for lines in typed.prompts()] == [expand("bow")[3], expand("crab")[3]]
    assert replace(typed, beside=trained).prompts() == [list(expand("bow (weapon)")), list(expand("crab"))]


def test_embed__ensemble_over_prompts_and_synonyms() -> None:
    model = TableModel(embed_dim=5)
    found = embed_vocabulary(model, Vocabulary(names=("couch",), synonyms=(("couch", "sofa"),)))
    assert torch.equal(found[0], ensemble(model.encode_texts([*expand("couch"), *expand("sofa")])))


def test_embed__many_names_in_chunks_are_in_order() -> None:
    model = TableModel(embed_dim=4)
    names = [f"thing {number}" for number in range(150)]
    found = embed_vocabulary(model, Vocabulary.of_classes(names))
    assert found.shape == (150, 4)
    alone = embed_vocabulary(model, Vocabulary.of_classes(names[130:131]))
    torch.testing.assert_close(found[130], alone[0])


def test_embed__kept_and_read_again(tmp_path: Path) -> None:
    model, names = TableModel(), Vocabulary.of_classes(["cat", "dog"])
    first = embed_vocabulary(model, names, tmp_path)
    asked = len(model.texts)
    assert torch.equal(embed_vocabulary(model, names, tmp_path), first)
    assert len(model.texts) == asked
    embed_vocabulary(TableModel({"a photo of a cat.": (1, 0, 0)}), names, tmp_path)
    embed_vocabulary(model, Vocabulary.of_classes(["dog", "cat"]), tmp_path)
    assert len(list(tmp_path.glob("text-*.safetensors"))) == 3


@pytest.mark.parametrize("content", [b"", b"no safetensors at all"])
def test_embed__a_damaged_file_is_made_anew(content: bytes, tmp_path: Path) -> None:
    model, names = TableModel(), Vocabulary.of_classes(["cat"])
    first = embed_vocabulary(model, names, tmp_path)
    [path] = tmp_path.iterdir()
    path.write_bytes(content)
    assert torch.equal(embed_vocabulary(model, names, tmp_path), first)
    assert path.read_bytes() != content


def test_embed__without_a_name() -> None:
    assert embed_vocabulary(TableModel(), Vocabulary(names=(), synonyms=())).shape == (0, 3)


def test_memory__many_names_are_estimated_and_too_many_refused() -> None:
    assert check_memory(499, 1000, 512) == ()
    # 20,000 x (1000 regions x 24 bytes + 512 numbers x 12 bytes)
    assert check_memory(20_000, 1000, 512) == ("20000 names on 1000 regions take about 0.6 GB of memory.",)
    with pytest.raises(EnvironmentFault, match=r"about 3014\.4 GB of memory, this machine has .* Give fewer names"):
        check_memory(100_000_000, 1000, 512)
