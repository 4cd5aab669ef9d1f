"""The example script, run as a person would."""

from pathlib import Path

from tests.forked import run

SCRIPT = Path(__file__).resolve().parents[3] / "docs" / "examples" / "train_abmil.py"


def test_train_abmil__learns_and_its_attention_finds_the_lesions() -> None:
    out, _ = run([str(SCRIPT)])
    *epochs, accuracy, found = [line.rpartition(" ") for line in out.splitlines()]
    losses = [float(loss) for _, _, loss in epochs]
    assert len(losses) == 5
    assert losses[-1] < losses[0] / 2
    assert accuracy[0] == "new bags classified correctly:"
    assert float(accuracy[2]) >= 0.9
    assert found[0] == "positive bags whose tile of highest attention shows a lesion:"
    assert float(found[2]) >= 0.9
