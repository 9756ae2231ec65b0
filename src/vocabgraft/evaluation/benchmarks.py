"""Published benchmarks by name: where they are, how their rows read, under which terms.

    benchmark:kormedmcqa                   the hub's data set at the commit that is pinned here, all its parts
    benchmark:kormedmcqa@COMMIT            the same at another commit
    benchmark:kormedmcqa/nurse             one part
    benchmark:kormedmcqa=my/copy.jsonl     a copy at hand, rows as on the hub or as `questions` reads them

What is known of each is in benchmarks.toml.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import cache
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from vocabgraft.corpus.catalogue import Commit, look_up, read_catalogue
from vocabgraft.corpus.source import HubName, open_hub
from vocabgraft.errors import DataError

PREFIX = "benchmark:"


class Benchmark(BaseModel):
    """One benchmark; fields name columns of its rows."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str
    title: str
    language: str
    kind: Literal["questions", "text"] = "questions"
    dataset: str
    revision: Commit | None = None
    """What is read where a source string names no commit."""
    configs: tuple[str, ...] = ()
    split: str
    items: int | None = None
    """How many its card says there are."""
    question: str = "question"
    context: str = ""
    options: tuple[str, ...] | str = ()
    """A column of each, or one that holds them all."""
    answer: str = "answer"
    counts: Literal["letter", "from one", "from zero"] | tuple[str, ...] = "letter"
    subject: str = ""
    cluster: tuple[str, ...] = ()
    license: str
    license_url: str
    non_commercial: bool = False
    note: str = ""

    def standard(self, row: Mapping[str, Any], config: str = "") -> dict[str, Any]:
        """The row as `questions` reads it; one that reads so already is left as it is."""
        columns = (self.options,) if isinstance(self.options, str) else self.options
        if any(_field(row, c) is None for c in (self.question, self.answer, *columns[:2]) if c):
            return dict(row)
        own = {"question": self._question(row), "options": self._options(row)}
        subject = str(row.get(self.subject) or row.get("subject") or config)
        cluster = "-".join(str(row.get(c, "")) for c in self.cluster)
        return {**row, **own, "answer": self._answer(_field(row, self.answer)), "subject": subject} | (
            {"cluster": f"{subject}-{cluster}"} if cluster.strip("-") else {}
        )

    def _options(self, row: Mapping[str, Any]) -> Any:
        if isinstance(self.counts, tuple):
            return list(self.counts)
        if isinstance(self.options, str):
            return _field(row, self.options)
        return [row[c] for c in self.options if row.get(c)]

    def _question(self, row: Mapping[str, Any]) -> Any:
        context = _field(row, self.context) if self.context else None
        texts, question = [context] if isinstance(context, str) else list(context or []), _field(row, self.question)
        return "\n".join([*map(str, texts), str(question)]) if texts else question

    def _answer(self, value: Any) -> Any:
        if isinstance(self.counts, tuple):
            return self.counts.index(value) + 1 if value in self.counts else None
        number = int(value) if isinstance(value, str) and value.strip().isdigit() else value
        return number + 1 if self.counts == "from zero" and isinstance(number, int) else number


def _field(row: Mapping[str, Any], column: str) -> Any:
    """A value of a row; 'data.Question' is a field of a column. None where there is none."""
    value: Any = row
    for part in column.split("."):
        value = value.get(part) if isinstance(value, Mapping) else None
    return value


@cache
def catalogue() -> dict[str, Benchmark]:
    """Every benchmark by name."""
    return read_catalogue(Benchmark, "vocabgraft.evaluation", "benchmarks.toml")


class Named(BaseModel):
    """A source string that names a benchmark, taken apart."""

    model_config = ConfigDict(frozen=True)

    benchmark: Benchmark
    config: str | None = None
    revision: str | None = None
    path: str | None = None

    def check(self) -> None:
        """DataError where nothing says which commit of the hub's data set is meant."""
        name, dataset = self.benchmark.name, self.benchmark.dataset
        if self.revision is None:
            raise DataError(
                f"benchmark {name}: which commit? Scores of different commits do not compare.\n"
                f"  from the hub: benchmark:{name}@COMMIT, from https://huggingface.co/datasets/{dataset}/commits/main\n"
                f"  a copy at hand: benchmark:{name}=PATH.jsonl"
            )

    def hub_rows(self) -> Iterator[tuple[dict[str, Any], str]]:
        """Rows of the hub's data set as `questions` reads them, each with its place; DataError where there is none."""
        known = self.benchmark
        for config in (self.config,) if self.config else known.configs or (None,):
            hub = HubName(known.dataset, self.revision, config, known.split)
            for number, row in enumerate(open_hub(hub), start=1):
                place = "-".join(part for part in (known.name, config, str(number)) if part)
                yield {"id": place, **known.standard(row, config or "")}, place


def named(source: str) -> Named:
    """Take apart a source string; DataError for a name, part or form that is unknown."""
    form = "benchmark:NAME[/PART][@COMMIT] or benchmark:NAME=PATH"
    found, config, revision, path = look_up(source, catalogue(), kind="benchmark", form=form)
    if found.kind != "questions":
        raise DataError(f"benchmark {found.name!r} has no questions; {found.note}")
    return Named(benchmark=found, config=config, revision=revision or found.revision, path=path)
