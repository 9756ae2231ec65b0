"""Tasks: a folder holds all of one or is not there, and only a receipt that is true in every part means done."""

from __future__ import annotations

import json
import os
import resource
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from vocabgraft.errors import DataError
from vocabgraft.scale.tasks import RECEIPT, Stretch, Task, finished, perform

LINES = b"".join(
    b'{"text": "%d: \xed\x98\x88\xec\x95\x95\xec\x9d\xb4 \xeb\x86\x92\xeb\x8b\xa4."}\n' % n for n in range(2000)
)


def task(folder: Path, **changes: object) -> Task:
    path = folder / "in.jsonl"
    if not path.exists():
        path.write_bytes(LINES)
    settings = {"path": str(path), "source": "s", "license": "l", "language": "ko", "max_bytes": 10**9}
    return Task(
        "vocabgraft.steps.reading:read",
        1,
        settings | {"max_unreadable": 0, "known": ""} | changes,
        (Stretch(path),),
        folder / "tasks" / "one",
    )


def contents(folder: Path) -> dict[str, bytes]:
    return {p.name: p.read_bytes() for p in folder.iterdir()}


def test_a_task_leaves_its_folder_with_a_receipt_and_nothing_beside(tmp_path: Path) -> None:
    perform(one := task(tmp_path))
    assert sorted(contents(one.out)) == ["documents.jsonl.zst", "ids", RECEIPT]
    assert [p.name for p in one.out.parent.iterdir()] == ["one"]
    assert finished(one)["tally"]["tally"]["kept"] == 2000
    before = contents(one.out)
    perform(one)
    assert contents(one.out) == before


@pytest.mark.parametrize("name", ["documents.jsonl.zst", "ids", RECEIPT])
@pytest.mark.parametrize("damage", ["bit", "truncated", "missing"])
def test_what_is_damaged_is_not_done_and_is_done_again_in_the_same_bytes(
    tmp_path: Path, name: str, damage: str
) -> None:
    perform(one := task(tmp_path))
    whole = contents(one.out)
    for place in range(0, len(whole[name]), max(1, len(whole[name]) // 40)):
        raw = bytearray(whole[name])
        raw[place] ^= 1
        if damage == "missing":
            (one.out / name).unlink(missing_ok=True)
        else:
            (one.out / name).write_bytes(raw if damage == "bit" else raw[:place])
        assert finished(one) is None, place
    perform(one)
    assert contents(one.out) == whole


def test_another_input_setting_function_or_revision_is_not_done(tmp_path: Path) -> None:
    perform(one := task(tmp_path))
    for other in (replace(one, revision=2), replace(one, function="a:b"), task(tmp_path, license="m")):
        assert finished(other) is None
    (tmp_path / "in.jsonl").touch()
    assert finished(one)
    (tmp_path / "in.jsonl").write_bytes(LINES.replace(b"7:", b"8:", 1))
    assert finished(one) is None
    (tmp_path / "in.jsonl").unlink()
    assert finished(one) is None


def test_a_stretch_that_is_not_what_it_was_is_refused(tmp_path: Path) -> None:
    (tmp_path / "f").write_bytes(b"abcdef")
    assert Stretch(tmp_path / "f", 1, 3).read() == b"bcd"
    with pytest.raises(DataError, match="is not what it was when the step before wrote it"):
        Stretch(tmp_path / "f", 1, 3, "0" * 64).read()


def test_an_input_that_grows_while_it_is_read_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from vocabgraft.steps import reading

    def grow(*_: object) -> dict[str, object]:
        (tmp_path / "in.jsonl").write_bytes(LINES * 2)
        return {}

    one = task(tmp_path)
    monkeypatch.setattr(reading, "read", grow)
    with pytest.raises(DataError, match=r"in\.jsonl changed while it was read"):
        perform(one)
    assert list(one.out.parent.iterdir()) == []


@pytest.mark.parametrize("workers", [1, 2])
def test_a_full_disk_leaves_nothing_half_written(tmp_path: Path, workers: int) -> None:
    program = (
        "import sys; from pathlib import Path; from vocabgraft.scale.engines import *\n"
        "from vocabgraft.scale.tasks import *; import json\n"
        "try: bring_about([Task.from_json(t) for t in json.loads(sys.argv[1])], Engine(workers=int(sys.argv[2])))\n"
        "except OSError as e: print(e.errno)\n"
    )
    first = task(tmp_path)
    second = replace(first, out=tmp_path / "tasks" / "two")

    def stop_growing() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (3000, resource.RLIM_INFINITY))

    words = [sys.executable, "-c", program, json.dumps([first.as_json(), second.as_json()]), str(workers)]
    path = os.pathsep.join(p for p in sys.path if p)
    said = subprocess.run(
        words, capture_output=True, text=True, preexec_fn=stop_growing, env={**os.environ, "PYTHONPATH": path}
    )
    assert said.stdout.strip() == "27", said.stderr
    assert list((tmp_path / "tasks").iterdir()) == []
    perform(first)
    assert finished(first)
