from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vocabgraft.report.ledger import Ledger
from vocabgraft.report.text import summary


def test_the_summary_fits_a_screen_and_says_the_main_things(ledger: Ledger) -> None:
    text = summary(ledger)
    assert len(text.splitlines()) <= 20
    for words in ("1.98", "23.8 %", "Not distinguishable from chance", "held in all 4 steps", "non-commercial"):
        assert words in text


def test_a_broken_freeze_proof_names_its_step(metrics: dict[str, dict[str, Any]], make: Callable[..., Ledger]) -> None:
    metrics["31-stage1"]["frozen"] = {"checked": 5, "identical": False}
    assert "BROKEN in 31-stage1" in summary(make(metrics))


def test_a_terminal_cannot_be_driven_from_a_manifest(hostile: Ledger) -> None:
    text = summary(hostile)
    assert "\x1b" not in text
    text.encode()


def test_an_empty_run_says_so() -> None:
    assert "no step is finished yet" in summary(Ledger("empty", {}, {}, []))
