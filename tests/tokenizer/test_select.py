"""Selection: a prefix of what was learnt, within its limits, and everything left out is listed."""

from __future__ import annotations

from pathlib import Path

import pytest

from vocabgraft.corpus.script import script_pattern
from vocabgraft.tokenizer.boundary import word_rule
from vocabgraft.tokenizer.count import WordCounts, count_words
from vocabgraft.tokenizer.measure import load_tokenizer
from vocabgraft.tokenizer.room import free_ids
from vocabgraft.tokenizer.select import RARE, Limits, select_pieces, wrong_parts
from vocabgraft.tokenizer.train import Candidate, train_pieces

KOREAN = (
    "환자는 혈압약을 먹는다. 환자가 혈압약을 끊었다. 혈압이 높은 환자는 의사와 상의한다. "
    "고혈압 환자의 혈압은 히스타민 힘줄 한국 환자에게 혈압약을 준다.\n당뇨병 환자는 혈당을 잰다 "
)
BOTH = ("gemma", "smollm2")


def learnt(base: Path, size: int = 60, times: int = 40) -> tuple[list[Candidate], WordCounts]:
    tokenizer = load_tokenizer(base)
    counts = count_words([KOREAN] * times, word_rule(tokenizer))
    return train_pieces(tokenizer, counts, script=script_pattern("Hangul"), size=size, min_count=2), counts


@pytest.mark.parametrize("family", BOTH)
def test_takes_a_prefix_and_counts_uses_with_the_real_tokenizer(make_base, family):
    base = make_base(family)[0]
    candidates, counts = learnt(base)
    chosen = select_pieces(base, candidates, counts, Limits(12), place="append")
    assert chosen.pieces == tuple(candidates[:12])
    assert chosen.dropped["no room"] == [c.piece for c in candidates[12:]]
    assert len(chosen.uses) == 12
    assert sum(chosen.uses) > 0


@pytest.mark.parametrize("family", BOTH)
def test_an_unwanted_piece_takes_along_what_needs_it(make_base, family):
    base = make_base(family)[0]
    candidates, counts = learnt(base)
    halves = {p for c in candidates for p in c.merge}
    unwanted = next(c.piece for c in candidates if c.piece in halves)
    chosen = select_pieces(base, candidates, counts, Limits(60, unwanted={"a name": {unwanted}}), place="append")
    assert chosen.dropped["a name"] == [unwanted]
    assert unwanted not in {p for c in chosen.pieces for p in (c.piece, *(c.merge if family == "smollm2" else ()))}
    listed = [p for pieces in chosen.dropped.values() for p in pieces]
    assert sorted(listed + [c.piece for c in chosen.pieces]) == sorted(c.piece for c in candidates)


def test_no_more_than_there_is_room(make_base):
    base = make_base("gemma")[0]
    candidates, counts = learnt(base, 500)
    room = len(free_ids(base).free)
    chosen = select_pieces(base, candidates, counts, Limits(500), room=min(room, 5))
    assert len(chosen.pieces) == min(room, 5)


def test_the_share_of_rare_pieces_is_kept(make_base):
    base = make_base("gemma")[0]
    candidates, counts = learnt(base, times=RARE + 1)
    free = select_pieces(base, candidates, counts, Limits(60), place="append")
    share = free.rare_share * 0.8
    assert share > 0, "steps on the way to longer pieces are hardly used themselves"
    held = select_pieces(base, candidates, counts, Limits(60, rare_share=share), place="append")
    assert held.rare_share <= share
    assert 0 < len(held.pieces) < len(free.pieces)
    assert held.dropped["too rare"]


def test_nothing_after_the_knee(make_base):
    base = make_base("gemma")[0]
    candidates, counts = learnt(base)
    chosen = select_pieces(base, candidates, counts, Limits(60, stop_at_knee=True), place="append")
    assert 0 < len(chosen.pieces) < len(candidates)
    assert chosen.dropped["after the knee"]


def test_a_piece_of_the_base_is_never_taken_twice(make_base):
    base = make_base("gemma")[0]
    candidates, counts = learnt(base)
    known = load_tokenizer(base).id_to_token(300)
    twice = [Candidate(known, (300,)), candidates[0], candidates[0]]
    chosen = select_pieces(base, twice, counts, Limits(9), place="append")
    assert chosen.pieces == (candidates[0],)
    assert chosen.dropped == {"already a base piece": [known], "learnt twice": [candidates[0].piece]}


@pytest.mark.parametrize("family", BOTH)
def test_parts_that_do_not_spell_their_piece_are_found(make_base, family):
    """Of byte-level pieces some are parts of a letter: no text gives them alone, but their bytes do."""
    base = make_base(family)[0]
    candidates = learnt(base)[0]
    pieces, parts = [c.piece for c in candidates], [c.parts for c in candidates]
    tokenizer = load_tokenizer(base)
    assert wrong_parts(tokenizer, pieces, parts) == []
    for n in (0, len(pieces) // 2, len(pieces) - 1):
        damaged = [*parts[:n], (parts[n][0], *parts[n]), *parts[n + 1 :]]
        assert wrong_parts(tokenizer, pieces, damaged) == [pieces[n]]
