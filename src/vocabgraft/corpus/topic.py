"""Is a text on a topic? Judged by runs of letters, learnt from examples.

Logistic regression over hashed runs of two to four letters, the kind that selects pages for language models
(arXiv 2005.14165, appendix A), on pieces of about a thousand letters, so that a page is judged as an examination
question is; a document's score is the mean log odds over its pieces. What the examples are told apart from is the
corpus itself, the topic in it included. So held-out examples have a say: the threshold is even odds, or lower where too
few of them would pass. It finds texts like the examples and little else, so these must be of every kind of text that
the corpus holds; counting the words of a medical dictionary did worse still (docs/results.md).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from vocabgraft.corpus.clean import split_long
from vocabgraft.errors import DataError

#: Why a document was dropped.
OFF_TOPIC = "not on the topic"
#: Fewer examples set no threshold worth the name.
MIN_EXAMPLES = 50

_PIECE = 1_000
_PIECES = 8
_RUNS = (2, 3, 4)
_BITS = 18
_HELD_SHARE = 5  # one in so many examples sets the threshold
_PENALTY = 1e-4
Score = Callable[[str], float]


@dataclass(frozen=True, slots=True)
class Topic:
    """A judge of texts: those whose log odds are at least `threshold` are on the topic."""

    weights: np.ndarray
    threshold: float

    def reason_to_drop(self, text: str) -> str | None:
        """Say 'not on the topic', or None to keep a text."""
        return None if classifier_score(self.weights)(text) >= self.threshold else OFF_TOPIC


def train_score(examples: Sequence[str], rest: Sequence[str]) -> np.ndarray:
    """Learn weights of hashed runs of letters that tell examples from the rest; the last one is the bias."""
    from scipy.optimize import minimize
    from scipy.sparse import csr_matrix

    pieces = [[piece for text in texts for piece in _pieces(text)] for texts in (examples, rest)]
    rows = [_runs(piece) for side in pieces for piece in side]
    places = np.cumsum([0, *(len(at) for at, _ in rows)])
    columns, values = np.concatenate([at for at, _ in rows]), np.concatenate([value for _, value in rows])
    matrix = csr_matrix((values, columns, places), shape=(len(rows), 1 << _BITS))
    sign = np.repeat([1.0, -1.0], [len(side) for side in pieces])
    # Both sides weigh the same, however many there are of each.
    weight = np.repeat([0.5 / max(1, len(side)) for side in pieces], [len(side) for side in pieces])

    def loss(w: np.ndarray) -> tuple[float, np.ndarray]:
        margin = sign * (matrix @ w[:-1] + w[-1])
        slope = -weight * sign / (1 + np.exp(margin))
        value = float(weight @ np.logaddexp(0, -margin)) + _PENALTY / 2 * float(w[:-1] @ w[:-1])
        return value, np.append(matrix.T @ slope + _PENALTY * w[:-1], slope.sum())

    found = minimize(loss, np.zeros((1 << _BITS) + 1), jac=True, method="L-BFGS-B", options={"maxiter": 200})
    return np.asarray(found.x, np.float32)


def classifier_score(weights: np.ndarray) -> Score:
    """Score by the mean over a text's pieces of the log odds that it is an example."""

    def score(text: str) -> float:
        odds = [float(value @ weights[at]) for at, value in map(_runs, _pieces(text))]
        return sum(odds) / max(1, len(odds)) + float(weights[-1])

    return score


def held_for_threshold(text: str) -> bool:
    """Tell by its hash whether an example sets the threshold instead of being learnt from."""
    return hashlib.sha256(b"topic\0" + text.encode()).digest()[0] % _HELD_SHARE == 0


def threshold_for(score: Score, held: Sequence[str], recall: float) -> float:
    """Even odds, or the highest threshold below at which this share of the held-out examples passes."""
    scores = sorted(map(score, held), reverse=True)
    return min(0.0, scores[max(0, int(np.ceil(recall * len(scores))) - 1)]) if scores else 0.0


def learn_topic(examples: Iterable[str], corpus: Iterable[str], recall: float) -> tuple[Topic, dict[str, Any]]:
    """Learn to tell examples from a corpus; also what was learnt from, and the share of held-out examples that pass."""
    texts = list(dict.fromkeys(examples))
    if len(texts) < MIN_EXAMPLES:
        raise DataError(
            f"data.select.examples: {len(texts)} different texts, at least {MIN_EXAMPLES} are needed; give more"
        )
    held = [text for text in texts if held_for_threshold(text)]
    known = set(texts)
    rest = [text for text in corpus if text not in known]
    if not rest:
        raise DataError(
            "data.select.examples: every text of data.target is an example; there is nothing to select from"
        )
    weights = train_score([text for text in texts if not held_for_threshold(text)], rest)
    topic = Topic(weights, threshold_for(classifier_score(weights), held, recall))
    passing = sum(topic.reason_to_drop(text) is None for text in held)
    return topic, {
        "examples": len(texts) - len(held),
        "examples_held_out": len(held),
        "corpus": len(rest),
        "threshold": round(topic.threshold, 4),
        "recall_held_out": round(passing / max(1, len(held)), 4),
    }


def save_topic(path: Path, topic: Topic) -> None:
    """Write a judge as safetensors; `load_topic` reads it."""
    from safetensors.numpy import save_file

    save_file({"weights": topic.weights, "threshold": np.array([topic.threshold])}, path)


def load_topic(path: Path) -> Topic:
    """Read a judge of texts."""
    from safetensors.numpy import load_file

    found = load_file(path)
    return Topic(found["weights"], float(found["threshold"][0]))


def _pieces(text: str) -> list[str]:
    """A few pieces of a text, spread over all of it."""
    pieces = split_long(text, _PIECE)
    step = -(-len(pieces) // _PIECES) or 1
    return pieces[::step]


def _runs(text: str) -> tuple[np.ndarray, np.ndarray]:
    """Places of a text's runs of letters and their values, of length one together. Digits are all the same."""
    letters = np.frombuffer(" ".join(text.casefold().split()).encode("utf-32-le"), np.uint32).astype(np.uint64)
    letters = np.where((letters >= 48) & (letters <= 57), np.uint64(48), letters)
    found = []
    for n in _RUNS:
        if len(letters) >= n:
            code = np.full(len(letters) - n + 1, n, np.uint64)
            for i in range(n):
                code = (code ^ letters[i : len(letters) - n + 1 + i]) * np.uint64(0x9E3779B97F4A7C15)
                code ^= code >> np.uint64(29)
            found.append((code >> np.uint64(64 - _BITS)).astype(np.int64))
    at, counts = np.unique(np.concatenate(found), return_counts=True) if found else (np.zeros(0, np.int64), np.zeros(0))
    value = np.sqrt(counts)
    return at, value / max(1.0, float(np.sqrt(counts.sum())))
