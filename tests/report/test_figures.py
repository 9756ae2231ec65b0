from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vocabgraft.report import figures
from vocabgraft.report.ledger import Ledger


def test_before_and_after_come_from_the_same_text(
    metrics: dict[str, dict[str, Any]], make: Callable[..., Ledger]
) -> None:
    """The final evaluation reads more text than the probes: its own base, never the probe's."""
    assert figures.before_after(make(metrics), "target") == (1.533, 1.444)
    metrics["51-korean"]["bits_per_byte"] = {"final": 1.444}
    assert figures.before_after(make(metrics), "target") == (1.511, 1.401)
    del metrics["22-initialise"]
    assert figures.before_after(make(metrics), "target") == (None, None)


def test_every_measured_step_has_a_key_figure(ledger: Ledger) -> None:
    empty = [key for key in ledger.manifests if not figures.key_figure(ledger, key)]
    assert empty == ["00-environment"]


def test_what_a_score_rests_on_is_told_in_sentences(ledger: Ledger) -> None:
    assert figures.robustness(ledger, "51-korean") == (
        "Asked in 5 orders of the options: base 20.0 % right on average, 10.0 % in the worst, the same option in all "
        "for 2.5 %; final 23.0 % right on average, 15.0 % in the worst, the same option in all for 10.0 %."
    )
    assert figures.written(ledger, "51-korean") == (
        "Answered in writing: base 4/20 right, an answer in 50.0 %, 25.0 % ended by itself; "
        "final 5/20 right, an answer in 80.0 %, 95.0 % ended by itself, 100.0 % in the language."
    )
    assert figures.leak_gate(ledger, "51-korean") == (
        "Leak gate: 1,280 questions (1 too short to be looked for) looked for in every training text; dropped for "
        "holding one: 3 documents, 2 tuning examples."
    )


def test_each_of_several_sets_is_told(metrics: dict[str, dict[str, Any]], make: Callable[..., Ledger]) -> None:
    metrics["51-korean"]["choices"]["sets"] = {"medqa": {"verdict": "Kept."}, "medmcqa": {"verdict": "Lost."}}
    assert figures.sets(make(metrics), "51-korean") == "medqa: Kept. medmcqa: Lost."


def test_what_was_not_asked_is_not_told(ledger: Ledger) -> None:
    for tell in (figures.sets, figures.robustness, figures.written, figures.leak_gate):
        assert tell(ledger, "52-english") == ""
