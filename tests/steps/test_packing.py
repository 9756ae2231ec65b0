"""Stretches: long documents in parts, in an order of their own, some documents kept apart."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocabgraft.corpus.document import Document, write_documents
from vocabgraft.errors import DataError
from vocabgraft.recipe import load_recipe
from vocabgraft.steps import packing
from vocabgraft.steps.context import Silent
from vocabgraft.steps.data import Stretch, shuffled_stretches, shuffled_texts
from vocabgraft.steps.packing import kept_apart


def corpus(folder: Path, texts: list[str]) -> Any:
    """What a step is given, as far as its training text goes."""
    documents = [Document(str(n), text, "ko", "s", "CC0-1.0") for n, text in enumerate(texts)]
    write_documents(folder / "target.train.jsonl", documents)
    return SimpleNamespace(run=SimpleNamespace(path=lambda step, name: folder / name))


def law(number: int, articles: int) -> str:
    return " ".join(f"제{number}.{n}조 보건{n}에 관한{n} 사항을{n} 정한다{n}." for n in range(articles))


def test_stretches_are_the_whole_text_in_parts_of_the_size(tmp_path: Path) -> None:
    texts = [law(n, 40 + n) for n in range(12)]
    found = shuffled_stretches(corpus(tmp_path, texts), "target", 5, 300)
    assert all(150 < len(s.text.encode()) < 450 for s in found)
    for n, text in enumerate(texts):
        parts = [s.text for s in found if s.document == str(n)]
        assert len(parts) > 5
        assert "".join(sorted(parts, key=text.index)) == text


def test_the_first_stretches_are_of_many_documents(tmp_path: Path) -> None:
    """Else a budget below the corpus is spent on two or three laws."""
    found = shuffled_stretches(corpus(tmp_path, [law(n, 200) for n in range(20)]), "target", 5, 300)
    assert len({s.document for s in found[:20]}) > 8
    assert sum(a.document == b.document for a, b in pairwise(found)) < len(found) / 10


def test_the_order_is_the_seed_s(tmp_path: Path) -> None:
    context = corpus(tmp_path, [law(n, 40) for n in range(8)])
    assert shuffled_stretches(context, "target", 5, 300) == shuffled_stretches(context, "target", 5, 300)
    assert shuffled_stretches(context, "target", 5, 300) != shuffled_stretches(context, "target", 6, 300)


def test_short_documents_stand_in_the_order_of_documents(tmp_path: Path) -> None:
    context = corpus(tmp_path, [law(n, 2) for n in range(40)])
    assert [s.text for s in shuffled_stretches(context, "target", 5, 300)] == shuffled_texts(context, "target", 5)


def test_one_short_document_cannot_be_judged_by_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    context = corpus(tmp_path, [law(1, 2)])
    context.recipe = load_recipe("tiny-cpu")
    context.reporter = Silent()
    monkeypatch.setattr(packing, "tokens_of", lambda run, side: {"s": 40})
    with pytest.raises(DataError, match=r"^target text: one short document.*leave epochs and sweep out"):
        packing.corpus_mixture(context, 0.1, 1, 4096, apart=False)


@given(st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 30)), min_size=1))
def test_what_is_kept_apart_shares_no_document_with_the_rest(names: list[tuple[str, int]]) -> None:
    found = [Stretch(source, str(document), str(n)) for n, (source, document) in enumerate(names)]
    training, apart = kept_apart(found)
    assert sorted([*training, *apart], key=lambda s: int(s.text)) == found
    assert apart
    assert [s for s in found if s in training] == training
    documents = {source: {d for s, d in names if s == source} for source, _ in names}
    if max(map(len, documents.values())) == 1:
        longest = max(([s for s in found if s.source == source] for source in documents), key=len)
        assert apart == longest[-max(1, len(longest) // 10) :]
        return
    assert not {s[:2] for s in training} & {s[:2] for s in apart}
    for source, own in documents.items():
        held = {s.document for s in apart if s.source == source}
        assert len(held) == (max(1, len(own) // 10) if len(own) > 1 else 0)
