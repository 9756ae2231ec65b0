"""Advice on a text: learnt on one part, judged on the other; the same everywhere; in words that fit the figures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from vocabgraft.advice import measure_sources
from vocabgraft.errors import DataError
from vocabgraft.tokenizer.measure import encode, load_tokenizer


@pytest.fixture(scope="module")
def sources(tmp_path_factory, tied_world) -> tuple[Path, Path]:
    """Korean prose, and English prose, a document a line."""
    folder = tmp_path_factory.mktemp("advice")
    for name, texts in (("ko", tied_world.korean), ("en", tied_world.english)):
        lines = (json.dumps({"text": paragraph}) for t in texts for paragraph in t.split("\n"))
        (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", "utf-8")
    return folder / "ko.jsonl", folder / "en.jsonl"


@pytest.fixture(scope="module")
def measured(tied_world, sources):
    return measure_sources(tied_world.base, [str(s) for s in sources], script="Hangul", min_count=2)


def test_each_source_is_a_domain_and_all_together_one_more(measured, sources) -> None:
    korean, english, everything = measured.advice
    assert [korean.domain, english.domain, everything.domain] == [*map(str, sources), "all"]
    assert everything.tokens == korean.tokens + english.tokens
    assert everything.bytes == korean.bytes + english.bytes


def test_tokens_are_those_of_the_held_out_texts(measured, sources, tied_world) -> None:
    """The account says how many documents were held out; their tokens lie within the whole text's."""
    lines = [json.loads(line)["text"] for line in sources[0].read_text("utf-8").splitlines()]
    every = sum(map(len, encode(load_tokenizer(tied_world.base), lines)))
    assert 0 < measured.advice[0].tokens < 0.4 * every
    tally = measured.read[str(sources[0])]
    assert tally["read"] == len(lines)


def test_the_verdict_fits_the_text(measured) -> None:
    korean, english, _ = measured.advice
    assert korean.verdict.startswith("yes")
    assert korean.saved_at_knee > 0.1
    assert english.verdict.startswith("no: ")
    assert english.saved_at_knee == 0
    assert korean.verdict in measured.text()


def test_more_pieces_never_save_less(measured) -> None:
    for advice in measured.advice:
        shares = [advice.saved[k] for k in sorted(advice.saved)]
        assert shares == sorted(shares)


def test_the_answer_is_the_same_again(measured, tied_world, sources) -> None:
    again = measure_sources(tied_world.base, [str(s) for s in sources], script="Hangul", min_count=2, threads=2)
    assert again.as_json() == measured.as_json()


def test_a_source_too_small_to_hold_out_is_named(tied_world, tmp_path) -> None:
    (tmp_path / "one.jsonl").write_text('{"text": "고혈압 환자는 약을 먹는다."}\n', "utf-8")
    with pytest.raises(DataError, match=r"one\.jsonl: no document was held out"):
        measure_sources(tied_world.base, [str(tmp_path / "one.jsonl")], script="Hangul", held=0.001)
