import os
from pathlib import Path
from typing import Any

import pytest

from vision_core.batch.ledger import Ledger, Record, all_records, fault_of, output, read_ledgers
from vision_core.errors import EnvironmentFault, InputError, UsageError
from vision_core.files import stamp


def record(**changes: Any) -> Record:  # noqa: ANN401
    facts = {"input": "a.png", "name": "a", "status": "done", "seconds": 1.0, "version": "1", "fingerprint": "f"}
    return Record.model_validate(facts | changes)


def test_append__reads_back_the_last_word(tmp_path: Path) -> None:
    with Ledger(tmp_path / "0.jsonl") as ledger:
        ledger.append(record(status="failed", reason="'ü' is bad"))
        ledger.append(record(values={"objects": 3}))
    assert read_ledgers(tmp_path) == {"a.png": record(values={"objects": 3})}
    assert [line.status for line in all_records(tmp_path)] == ["failed", "done"]


def test_append__after_half_a_line_starts_a_line_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "0.jsonl"
    with Ledger(path) as ledger:
        ledger.append(record())
    whole = path.read_bytes()
    path.write_bytes(whole + whole[:30])
    with Ledger(path) as ledger:
        ledger.append(record(input="b.png"))
    assert list(read_ledgers(tmp_path)) == ["a.png", "b.png"]
    assert path.read_bytes().startswith(whole + b'{"input":"b.png"')


def test_ledger__damaged_line_is_an_input_not_done(tmp_path: Path) -> None:
    (tmp_path / "0.jsonl").write_text("nonsense\n" + record().model_dump_json() + '\n{"input": 3}\n', encoding="utf-8")
    assert list(read_ledgers(tmp_path)) == ["a.png"]


def test_read_ledgers__done_in_one_shard_beats_failed_in_another(tmp_path: Path) -> None:
    for shard, status in (("0", "done"), ("1", "failed")):
        with Ledger(tmp_path / f"{shard}.jsonl") as ledger:
            ledger.append(record(status=status))
    assert read_ledgers(tmp_path)["a.png"].status == "done"


def test_ledger__second_owner_is_refused_until_the_first_ends(tmp_path: Path) -> None:
    path = tmp_path / "out" / "ledger" / "0.jsonl"
    with Ledger(path), pytest.raises(UsageError, match="Another process works on"), Ledger(path):
        pass
    with Ledger(path):
        pass


def test_ledger__file_where_a_folder_is_needed_is_a_fault_of_the_environment(tmp_path: Path) -> None:
    (tmp_path / "ledger").write_text("", encoding="utf-8")
    with pytest.raises(EnvironmentFault, match="Cannot write"), Ledger(tmp_path / "ledger" / "0.jsonl"):
        pass


@pytest.mark.parametrize("position", [0, 50_000, 199_999])
def test_stamp__sees_a_changed_byte_at_either_end_even_if_the_time_was_put_back(tmp_path: Path, position: int) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(bytes(200_000))
    before = stamp(path)
    content = bytearray(200_000)
    content[position] = 1
    path.write_bytes(content)
    os.utime(path, ns=(before.modified_ns, before.modified_ns))
    assert stamp(path) != before


def test_stamp__missing_input_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.png' cannot be opened: no such file"):
        stamp(tmp_path / "gone.png")


def test_fault_of__missing_and_altered_outputs(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_text("{}", encoding="utf-8")
    made = output(path, tmp_path)
    assert fault_of(made, tmp_path) == ""
    path.write_text("[]", encoding="utf-8")
    assert "not what was written" in fault_of(made, tmp_path)
    path.unlink()
    assert "is missing" in fault_of(made, tmp_path)
