from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest

from vocabgraft.errors import RunError
from vocabgraft.report.ledger import Ledger, bits_path, final_on_other_text, read_ledger


def test_steps_come_in_order_and_unfinished_folders_are_left_out(run_folder: Path) -> None:
    (run_folder / "33-stage3.partial").mkdir()
    (run_folder / "33-stage3.partial" / "manifest.json").write_text("{}")
    (run_folder / "34-stage4").mkdir()
    keys = list(read_ledger(run_folder).manifests)
    assert keys == sorted(keys)
    assert "33-stage3.partial" not in keys
    assert "34-stage4" not in keys


def test_a_cut_off_last_event_is_dropped(run_folder: Path) -> None:
    with (run_folder / "events.jsonl").open("ab") as f:
        f.write(b'{"time": 2, "event": "sta' + b"\xec\x95")
    assert [e["event"] for e in read_ledger(run_folder).events] == ["start"]


def test_a_damaged_event_in_the_middle_is_shown_and_not_fatal(run_folder: Path) -> None:
    """Killed while writing, then continued: the torn line and the next event share a line."""
    with (run_folder / "events.jsonl").open("a") as f:
        f.write('{"time": 2, "ev{"time": 3, "event": "start"}\n{"time": 4, "event": "done"}\n')
    events = read_ledger(run_folder).events
    assert [e["event"] for e in events] == ["start", "unreadable", "done"]
    assert "line 2" in events[1]["note"]


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff\xfe", b'{"metrics": []}', b'{"licences": {}}'])
def test_a_broken_manifest_is_named(run_folder: Path, damage: bytes) -> None:
    path = run_folder / "22-initialise" / "manifest.json"
    path.write_bytes(damage)
    with pytest.raises(RunError, match=r"22-initialise/manifest\.json: damaged.*--from 22-initialise"):
        read_ledger(run_folder)


def test_a_folder_that_is_not_a_run_is_refused(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="not a run folder"):
        read_ledger(tmp_path)


def test_the_bits_path_goes_from_base_to_final(ledger: Ledger) -> None:
    assert bits_path(ledger) == [
        ("base", 1.511, 0.911),
        ("initialised", 1.877, 0.912),
        ("stage 1", 1.699, 0.913),
        ("stage 2", 1.622, 0.914),
        ("instruct", 1.401, 0.915),
        ("final", 1.444, 0.933),
    ]


def test_a_final_evaluation_on_other_text_is_told_apart(ledger: Ledger) -> None:
    assert final_on_other_text(ledger)
    metrics = ledger.manifests["51-korean"]["metrics"] | {"bits_per_byte": {"base": 1.511, "final": 1.4}}
    same = ledger.manifests | {"51-korean": {"metrics": metrics}}
    del same["52-english"]
    assert not final_on_other_text(dataclasses.replace(ledger, manifests=same))


def test_points_without_any_number_are_left_out() -> None:
    manifests = {
        "31-stage1": {"metrics": {"bits_per_byte": {"target": 1.0, "replay": None}}},
        "32-stage2": {"metrics": {"bits_per_byte": "lost"}},
        "33-stage3": {},
    }
    assert bits_path(Ledger("x", {}, manifests, [])) == [("stage 1", 1.0, None)]
