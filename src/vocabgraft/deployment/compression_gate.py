"""What a compressed model lost, measured on the same items as the full one, and which method may ship.

Losses carry a paired 95 % interval. The gate takes the point estimate, since a small set of questions can show hardly
any loss to be small; where the interval crosses the limit the sentence says so.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from tokenizers import Tokenizer

from vocabgraft.errors import ModelError
from vocabgraft.evaluation.bits import Bits, bits_per_byte
from vocabgraft.evaluation.choices import answer_questions
from vocabgraft.evaluation.questions import Question, clusters_of
from vocabgraft.evaluation.statistics import paired_change, paired_difference
from vocabgraft.training.chat import ChatFormat


@dataclass(frozen=True)
class Material:
    """What is measured, by side: held-out windows of text, and questions."""

    texts: Mapping[str, Sequence[str]]
    questions: Mapping[str, Sequence[Question]]


@dataclass(frozen=True)
class Measured:
    """What one model did with it: bits of each window, and whether each question was answered right."""

    bits: dict[str, Bits]
    right: dict[str, list[bool]]


def measure(model: Any, tokenizer: Tokenizer, chat: ChatFormat, bos: tuple[int, str], what: Material) -> Measured:
    """Score a live model; questions in their given order of options. bos: id and piece that begin a text."""
    bits = {side: bits_per_byte(model, tokenizer, texts, bos=bos[0]) for side, texts in what.texts.items()}
    answers = {
        side: answer_questions(model, tokenizer, chat, questions, bos=bos[1])
        for side, questions in what.questions.items()
    }
    return Measured(bits, {side: [a.right for a in found] for side, found in answers.items()})


@dataclass(frozen=True)
class Loss:
    """One measure of one side against the full model: shares of 1, more is worse, `most` is allowed."""

    measure: str
    side: str
    loss: float
    low: float
    high: float
    most: float

    @property
    def passed(self) -> bool:
        """Whether the point estimate stays within what is allowed."""
        return self.loss <= self.most

    @property
    def conclusive(self) -> bool:
        """Whether the whole interval lies on one side of what is allowed."""
        return (self.high <= self.most) if self.passed else (self.low > self.most)

    @property
    def sentence(self) -> str:
        """Figure, interval, limit and verdict."""
        unit = "points" if self.measure == "accuracy" else "%"
        shown, low, high, most = (100 * x for x in (self.loss, self.low, self.high, self.most))
        verdict = "within" if self.passed else "too much"
        return (
            f"{self.side} {self.measure} {shown:+.2f} {unit} lost ({low:+.2f} to {high:+.2f}; {most:g} allowed): "
            f"{verdict}{'' if self.conclusive else ', not conclusive'}"
        )


@dataclass(frozen=True)
class Attempt:
    """One method: what it lost, or why there is nothing to measure; facts: seconds, bytes and so on."""

    method: str
    losses: tuple[Loss, ...] = ()
    facts: dict[str, Any] = field(default_factory=dict)
    error: str = ""

    @property
    def passed(self) -> bool:
        """Whether it may ship."""
        return not self.error and all(loss.passed for loss in self.losses)

    @property
    def sentence(self) -> str:
        """All that was found, in one line."""
        return f"{self.method}: " + (self.error or "; ".join(loss.sentence for loss in self.losses))

    def worse_than(self, other: Attempt) -> list[str]:
        """Sides on which this loses more bits per byte than the other."""
        mine, theirs = ({x.side: x.loss for x in a.losses if x.measure == _BITS} for a in (self, other))
        return [side for side in mine if side in theirs and mine[side] > theirs[side]]

    def as_json(self) -> dict[str, Any]:
        """For the receipt."""
        losses = [
            {**vars(x), "passed": x.passed, "conclusive": x.conclusive, "sentence": x.sentence} for x in self.losses
        ]
        return {"method": self.method, "passed": self.passed, "error": self.error, "losses": losses, **self.facts}


_BITS = "bits per byte"


def losses(
    full: Measured, small: Measured, what: Material, *, max_rise: float, max_accuracy_loss: float
) -> tuple[Loss, ...]:
    """What `small` lost of each side; max_rise: share of bits per byte, max_accuracy_loss: points."""
    found = []
    for side, bits in full.bits.items():
        change = paired_change(bits.bits, small.bits[side].bits, bits.bytes)
        found.append(Loss(_BITS, side, change.relative, change.low, change.high, max_rise))
    for side, right in full.right.items():
        gain = paired_difference(right, small.right[side], clusters_of(what.questions[side]))
        # 0.0 - x: a difference of nothing is no "-0.0".
        lost, low, high = 0.0 - gain.difference, 0.0 - gain.high, 0.0 - gain.low
        found.append(Loss("accuracy", side, lost, low, high, max_accuracy_loss / 100))
    return tuple(found)


def first_that_passes(
    methods: Sequence[str], attempt: Callable[[str], Attempt], tell: Callable[[Attempt], None] = lambda _: None
) -> tuple[Attempt | None, list[Attempt]]:
    """Try methods in order until one may ship; every attempt is told. A method that fails on this model is one that
    did not pass."""
    tried: list[Attempt] = []
    for method in methods:
        try:
            found = attempt(method)
        except ModelError as e:
            found = Attempt(method, error=str(e))
        tried.append(found)
        tell(found)
        if found.passed:
            return found, tried
    return None, tried
