"""The first method within the limits ships; a figure that its interval does not bear out is called inconclusive."""

from __future__ import annotations

import pytest

from vocabgraft.deployment.compression_gate import Attempt, Loss, Material, Measured, first_that_passes, losses
from vocabgraft.errors import MachineError, ModelError
from vocabgraft.evaluation.bits import Bits
from vocabgraft.evaluation.questions import Question


def bits(loss: float, low: float, high: float, side: str = "target") -> Loss:
    return Loss("bits per byte", side, loss, low, high, 0.015)


@pytest.mark.parametrize(
    ("found", "passed", "conclusive", "says"),
    [
        (bits(0.008, 0.005, 0.011), True, True, "+0.80 % lost (+0.50 to +1.10; 1.5 allowed): within"),
        (bits(0.012, 0.005, 0.02), True, False, "+1.20 % lost (+0.50 to +2.00; 1.5 allowed): within, not conclusive"),
        (bits(0.02, 0.012, 0.03), False, False, "+2.00 % lost (+1.20 to +3.00; 1.5 allowed): too much, not conclusive"),
        (bits(0.2, 0.18, 0.22), False, True, "+20.00 % lost (+18.00 to +22.00; 1.5 allowed): too much"),
        (bits(-0.001, -0.002, 0.0), True, True, "-0.10 % lost (-0.20 to +0.00; 1.5 allowed): within"),
        (bits(0.015, 0.01, 0.015), True, True, "+1.50 % lost (+1.00 to +1.50; 1.5 allowed): within"),
    ],
)
def test_a_loss_is_judged_by_its_estimate_and_its_interval_is_told(
    found: Loss, passed: bool, conclusive: bool, says: str
) -> None:
    assert (found.passed, found.conclusive) == (passed, conclusive)
    assert found.sentence == f"target bits per byte {says}"


def test_losses_are_paired_by_window_and_by_question() -> None:
    windows = Bits((1000.0, 2000.0, 1500.0, 900.0), (125, 250, 190, 110), 500)
    worse = Bits(tuple(1.02 * b for b in windows.bits), windows.bytes, 500)
    questions = [Question(str(n), f"q{n}", ("a", "b"), 0) for n in range(8)]
    what = Material({"target": []}, {"target": questions})
    right = [True, True, True, True, True, False, False, False]
    full, small = Measured({"target": windows}, {"target": right}), Measured({"target": worse}, {"target": [*right]})
    small.right["target"][0] = False
    text, asked = losses(full, small, what, max_rise=0.015, max_accuracy_loss=1.0)
    assert (text.loss, text.low, text.high) == pytest.approx((0.02, 0.02, 0.02)), "every window alike: no doubt"
    assert not text.passed
    assert (asked.loss, asked.most) == (0.125, 0.01)
    assert asked.low < 0.01 < asked.high, "one of eight questions shows nothing"
    assert "+12.50 points lost" in asked.sentence
    assert asked.sentence.endswith("1 allowed): too much, not conclusive")
    same = losses(full, full, what, max_rise=0.015, max_accuracy_loss=1.0)
    assert [x.loss for x in same] == [0.0, 0.0]
    assert same[1].sentence.startswith("target accuracy +0.00 points lost")


GOOD, BAD = Attempt("w8a16", (bits(0.001, 0.0, 0.002),)), Attempt("awq", (bits(0.2, 0.1, 0.3),))


def test_methods_are_tried_in_order_until_one_may_ship() -> None:
    made, told = [], []

    def attempt(method: str) -> Attempt:
        made.append(method)
        if method == "gptq":
            raise ModelError("gptq of model: the compressor failed (no such layer)")
        return {"awq": BAD, "w8a16": GOOD}[method]

    chosen, tried = first_that_passes(["awq", "gptq", "w8a16", "never"], attempt, told.append)
    assert chosen == GOOD
    assert made == ["awq", "gptq", "w8a16"]
    assert [(a.method, a.passed) for a in tried] == [("awq", False), ("gptq", False), ("w8a16", True)]
    assert tried[1].sentence == "gptq: gptq of model: the compressor failed (no such layer)"
    assert told == tried


def test_none_ships_where_none_is_good_enough() -> None:
    chosen, tried = first_that_passes(["awq"], lambda _: BAD)
    assert chosen is None
    assert tried == [BAD]


def test_one_loss_too_many_is_enough_to_refuse() -> None:
    good, bad = bits(0.001, 0, 0.002), bits(0.1, 0.09, 0.11, side="replay")
    assert not Attempt("awq", (good, bad)).passed
    assert Attempt("awq", (good, good)).passed


def test_what_the_machine_lacks_is_no_reason_to_take_another_method() -> None:
    def attempt(method: str) -> Attempt:
        raise MachineError("no room")

    with pytest.raises(MachineError, match="no room"):
        first_that_passes(["awq", "gptq"], attempt)


def test_a_method_that_loses_more_than_plain_rounding_is_told_by_side() -> None:
    rounded = Attempt("rtn", (bits(0.1, 0.1, 0.1), bits(0.05, 0.05, 0.05, side="replay")))
    better = Attempt("gptq", (bits(0.05, 0.05, 0.05), bits(0.06, 0.06, 0.06, side="replay")))
    assert better.worse_than(rounded) == ["replay"]
    assert rounded.worse_than(rounded) == []
    assert Attempt("awq", error="failed").worse_than(rounded) == []
    assert better.as_json()["losses"][0]["passed"] is False
