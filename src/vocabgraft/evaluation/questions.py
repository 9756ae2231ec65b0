"""Multiple-choice questions as data: read, validate, count what is wrong, split by hash."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import takewhile
from pathlib import Path

from vocabgraft.corpus.document import Tally, held_out
from vocabgraft.corpus.lines import read_lines
from vocabgraft.corpus.source import missing
from vocabgraft.errors import DataError
from vocabgraft.evaluation.benchmarks import PREFIX, named

LETTERS = "ABCDEFGHIJ"


@dataclass(frozen=True)
class Question:
    """One item: `answer` is the 0-based index of the right option."""

    id: str
    question: str
    options: tuple[str, ...]
    answer: int
    reason: str = ""
    subject: str = ""
    cluster: str = ""
    """What it was set with, such as exam and year: such items are not independent. Empty: nothing is known."""
    set: str = ""
    """The benchmark or file it came from."""


def clusters_of(questions: Sequence[Question]) -> list[str] | None:
    """The cluster of each question, itself where none is known; None where none of them tells."""
    if not any(q.cluster for q in questions):
        return None
    return [q.cluster or q.id for q in questions]


@dataclass(frozen=True)
class Instruction:
    """One free-text pair."""

    id: str
    instruction: str
    response: str


def data_path(source: str) -> Path | None:
    """A file, `samples:questions_ko` for one shipped with the package, or `benchmark:NAME=PATH`; None for the hub's.

    DataError where it is not there.
    """
    if source.startswith(PREFIX):
        benchmark = named(source)
        if benchmark.path is None:
            benchmark.check()
            return None
        path = Path(benchmark.path)
    elif source.startswith("samples:"):
        path = Path(__file__).parent.parent / "samples" / f"{source.removeprefix('samples:')}.jsonl"
    else:
        path = Path(source)
    if not path.is_file():
        raise DataError(missing(path))
    return path


def read_questions(sources: Sequence[str], tally: Tally) -> list[Question]:
    """All valid questions. Rows: question, options (a list, by letter, or A..E), answer (1-based number, or a letter),
    reason, subject; cluster, or year and period of an exam.

    A row that cannot be used is dropped and counted: 'invalid JSON', 'answer key outside the options', … When
    nothing is left of sources that are named, DataError.
    """
    found = [q for row, place in _rows(sources, tally) if (q := _question(row, place, tally))]
    if sources and not found:
        raise DataError(f"no usable question in {', '.join(sources)}; dropped: {dict(tally.dropped)}")
    return found


def read_instructions(sources: Sequence[str], tally: Tally) -> list[Instruction]:
    """All valid instruction pairs. Rows: instruction, response."""
    found = []
    for row, place in _rows(sources, tally):
        texts = [row.get(k) for k in ("instruction", "response")]
        if all(isinstance(t, str) and t.strip() for t in texts):
            tally.keep()
            found.append(Instruction(str(row.get("id", place)), str(texts[0]), str(texts[1])))
        else:
            tally.drop("no instruction or response", place)
    return found


def split_questions(questions: Sequence[Question], test_share: float) -> tuple[list[Question], list[Question]]:
    """(training, test), fixed by a hash of each question's text: a shared text never lands on both sides."""
    test = [q for q in questions if held_out(q.question, test_share)]
    return [q for q in questions if not held_out(q.question, test_share)], test


def prompt(question: Question) -> str:
    """The question as a user would ask it; the answer is to begin with a letter."""
    options = "\n".join(f"{LETTERS[i]}. {text}" for i, text in enumerate(question.options))
    return f"{question.question}\n{options}"


def answer_text(question: Question) -> str:
    """The answer a model is tuned to give."""
    right = f"{LETTERS[question.answer]}. {question.options[question.answer]}"
    return f"{right}\n{question.reason}".rstrip()


def by_lot(question: Question) -> Question:
    """The question with any of its options as the answer, fixed by a hash of its text, and no reason given."""
    drawn = int.from_bytes(hashlib.sha256(question.question.encode()).digest()[:8], "big") % len(question.options)
    return replace(question, answer=drawn, reason="")


def _rows(sources: Sequence[str], tally: Tally) -> Iterator[tuple[dict[str, object], str]]:
    for source in sources:
        path = data_path(source)
        benchmark = named(source) if source.startswith(PREFIX) else None
        own = benchmark.benchmark.name if benchmark else path.name.partition(".")[0] if path else source
        if benchmark is not None and path is None:
            yield from (({"set": own, **row}, place) for row, place in benchmark.hub_rows())
        for number, line in read_lines(path) if path is not None else ():
            place = f"{path.name if path else source}:{number}"
            if line is not None and not line.strip():
                continue
            try:
                row = json.loads(line.decode() if line is not None else "")
                # JSON may spell half a surrogate pair, which is no text.
                json.dumps(row, ensure_ascii=False).encode()
            except UnicodeDecodeError:
                tally.drop("invalid UTF-8", place)
            except UnicodeEncodeError:
                tally.drop("lone surrogate", place)
            except (ValueError, RecursionError):
                tally.drop("invalid JSON" if line is not None else "longer than 64 MiB", place)
            else:
                if isinstance(row, dict):
                    yield {"set": own, **(benchmark.benchmark.standard(row) if benchmark else row)}, place
                else:
                    tally.drop("invalid JSON", place)


def _question(row: dict[str, object], place: str, tally: Tally) -> Question | None:
    """A question, or None and the reason counted."""
    text, options = row.get("question"), row.get("options")
    lettered = row if options is None else options
    if isinstance(lettered, dict):
        options = [lettered[x] for x in takewhile(lambda x: lettered.get(x) not in (None, ""), LETTERS)]
    answer = _answer_key(row.get("answer"))
    if not isinstance(text, str) or not text.strip():
        tally.drop("no question", place)
    elif not isinstance(options, list) or len(options) < 2 or len({str(o) for o in options}) < len(options):
        tally.drop("fewer than two different options", place)
    elif len(options) > len(LETTERS):
        tally.drop(f"more than {len(LETTERS)} options", place)
    elif not 0 <= answer < len(options):
        tally.drop("answer key outside the options", place)
    else:
        tally.keep()
        reason, subject = (str(row.get(key) or "") for key in ("reason", "subject"))
        own = str(row.get("id", place))
        cluster, came_from = _cluster(row), str(row["set"])
        return Question(own, text, tuple(str(o) for o in options), answer, reason, subject, cluster, came_from)
    return None


def _cluster(row: dict[str, object]) -> str:
    """Named, or the exam: subject, year and period."""
    if row.get("cluster"):
        return str(row["cluster"])
    return "-".join(str(row.get(key, "")) for key in ("subject", "year", "period")) if row.get("year") else ""


def _answer_key(value: object) -> int:
    """0-based index of 'B', ' b ' or 2; -1 for anything else."""
    if isinstance(value, str) and len(value.strip()) == 1:
        return LETTERS.find(value.strip().upper())
    return value - 1 if isinstance(value, int) and not isinstance(value, bool) else -1
