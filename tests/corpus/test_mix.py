"""Rows lose no token, keep documents apart, and come in the same order every time."""

from __future__ import annotations

import hashlib
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from vocabgraft.corpus.mix import (
    NO_TARGET,
    Example,
    Mixture,
    Part,
    Rows,
    pack_documents,
    pack_examples,
    parts_of,
    tail,
    windows,
)
from vocabgraft.errors import DataError

BOS = 2
DOCUMENTS = st.lists(st.lists(st.integers(3, 10_000), max_size=60), min_size=1, max_size=12).filter(any)


def pieces(rows: Rows) -> list[list[int]]:
    """Tokens between restarts of the position, padding left out."""
    found = []
    for tokens, positions in zip(rows.tokens, rows.positions, strict=True):
        starts = [*np.flatnonzero(positions == 0), len(tokens)]
        found += [list(tokens[a:b]) for a, b in pairwise(starts) if tokens[a] == BOS]
    return found


@given(documents=DOCUMENTS, window=st.integers(8, 50))
def test_packing_documents_loses_no_token_and_changes_no_order(documents: list[list[int]], window: int) -> None:
    rows = pack_documents(documents, window, BOS)
    cut = pieces(rows)
    assert {len(p) > 1 and p[0] == BOS for p in cut} == {True}
    assert [t for p in cut for t in p[1:]] == [t for d in documents for t in d]


@given(documents=DOCUMENTS, window=st.integers(8, 50))
def test_every_document_token_is_predicted_once_from_its_own_past(documents: list[list[int]], window: int) -> None:
    rows = pack_documents(documents, window, BOS)
    assert rows.tokens.shape == rows.positions.shape == rows.targets.shape == (len(rows), window)
    counted = rows.targets != NO_TARGET
    assert list(rows.targets[counted]) == [t for d in documents for t in d]
    here, after = np.nonzero(counted)
    assert (rows.tokens[here, after + 1] == rows.targets[counted]).all()
    assert (rows.positions[here, after + 1] == rows.positions[here, after] + 1).all()


def test_positions_restart_at_each_piece_and_at_the_padding() -> None:
    rows = pack_documents([[11, 12, 13], [21, 22, 23, 24]], 12, BOS)
    assert rows.tokens.tolist() == [[2, 11, 12, 13, 2, 21, 22, 23, 24, 0, 0, 0]]
    assert rows.positions.tolist() == [[0, 1, 2, 3, 0, 1, 2, 3, 4, 0, 1, 2]]
    assert rows.targets.tolist() == [[11, 12, 13, -100, 21, 22, 23, 24, -100, -100, -100, -100]]


def test_a_long_document_goes_on_in_the_next_row_after_bos() -> None:
    rows = pack_documents([range(10, 24)], 10, BOS)
    assert rows.tokens.tolist() == [[2, *range(10, 19)], [2, *range(19, 24), 0, 0, 0, 0]]


def test_no_text_is_an_error() -> None:
    with pytest.raises(DataError, match="gave no tokens"):
        pack_documents([[], []], 16, BOS)
    with pytest.raises(DataError, match="gave no tokens"):
        pack_examples([], 16)


@given(
    lengths=st.lists(st.tuples(st.integers(1, 12), st.integers(1, 12)), min_size=1, max_size=15),
    window=st.integers(24, 60),
)
def test_examples_stay_whole_and_only_marked_tokens_are_learnt(lengths: list[tuple[int, int]], window: int) -> None:
    examples = [
        Example((BOS, *range(100, 99 + asked), *range(500, 500 + told)), (False,) * asked + (True,) * told)
        for asked, told in lengths
    ]
    rows = pack_examples(examples, window)
    assert [tuple(p) for p in pieces(rows)] == [e.tokens for e in examples]
    learnt = [t for e in examples for t, marked in zip(e.tokens, e.learn, strict=True) if marked]
    assert list(rows.targets[rows.targets != NO_TARGET]) == learnt


def test_an_example_longer_than_the_window_is_cut_at_its_end() -> None:
    rows = pack_examples([Example(tuple(range(2, 30)), (False,) * 4 + (True,) * 24)], 10)
    assert rows.tokens.tolist() == [list(range(2, 12))]
    assert rows.targets.tolist() == [[-100, -100, -100, *range(6, 12), -100]]


def stream(first: int, count: int) -> Rows:
    numbers = np.arange(first, first + count)[:, None]
    return Rows(numbers, numbers, numbers)


def mixture(share: float, *, seed: int = 0, target: int = 7, replay: int = 5) -> Mixture:
    return Mixture(stream(0, target), stream(1000, replay), share, seed, rows_per_step=4)


def drawn(mix: Mixture, steps: int) -> list[int]:
    return [int(t) for step in range(steps) for t in mix.batch(step).tokens[:, 0]]


@given(share=st.integers(0, 100).map(lambda n: n / 100), steps=st.integers(1, 40))
def test_shares_are_exact_at_every_step(share: float, steps: int) -> None:
    replayed = sum(t >= 1000 for t in drawn(mixture(share), steps))
    assert abs(replayed - 4 * steps * share) < 1 + 1e-9


def test_each_stream_is_seen_whole_once_an_epoch_in_a_new_order() -> None:
    numbers = drawn(mixture(0.5), 14)
    target, replay = [t for t in numbers if t < 1000], [t for t in numbers if t >= 1000]
    epochs = [target[i : i + 7] for i in (0, 7, 14, 21)]
    assert all(sorted(e) == list(range(7)) for e in epochs)
    assert len({tuple(e) for e in epochs}) > 1
    assert sorted(replay[:5]) == sorted(replay[5:10]) == list(range(1000, 1005))


@given(step=st.integers(0, 10_000), seed=st.integers(0, 2**32))
def test_a_batch_depends_on_seed_and_step_alone(step: int, seed: int) -> None:
    used = mixture(0.3, seed=seed)
    drawn(used, 3)
    again, fresh = used.batch(step), mixture(0.3, seed=seed).batch(step)
    assert (again.tokens == fresh.tokens).all()
    assert (again.targets == fresh.targets).all()
    assert (again.positions == fresh.positions).all()


def test_another_seed_gives_another_order() -> None:
    assert drawn(mixture(0.3, seed=0, target=50), 10) != drawn(mixture(0.3, seed=1, target=50), 10)


def test_without_parts_batches_are_what_they_were_before_there_were_parts() -> None:
    """Recorded at commit 391b706: recipes that name no source and no temperature train on the same rows."""

    def documents(first: int, count: int) -> list[list[int]]:
        return [[3 + (first * 7919 + n * 31 + k * 17) % 9973 for k in range(5 + (n * 13) % 90)] for n in range(count)]

    packed = [pack_documents(documents(first, count), 32, BOS) for first, count in ((1, 60), (2, 25))]
    mix, digest = Mixture(*packed, 0.2, 7, 8), hashlib.sha256()
    for step in range(40):
        batch = mix.batch(step)
        for array in (batch.tokens, batch.positions, batch.targets):
            digest.update(array.astype("<i8").tobytes())
    assert digest.hexdigest() == "90b58c9209e8994172227bfabeca1df5c0f46556cf6b3dd494d93b394d8b2935"


PARTS = (Part("laws", 4, 0.25), Part("reviews", 2, 0.25), Part("wiki", 30, 0.5))


def parted(seed: int = 3, parts: tuple[Part, ...] = PARTS, share: float = 0.25) -> Mixture:
    return Mixture(stream(0, sum(p.rows for p in parts)), stream(1000, 5), share, seed, 4, target_parts=parts)


@given(steps=st.integers(1, 40), share=st.sampled_from([0.0, 0.1, 0.25, 0.5]))
def test_each_source_has_its_share_of_its_side_up_to_one_row(steps: int, share: float) -> None:
    numbers = drawn(parted(share=share), steps)
    target = [n for n in numbers if n < 1000]
    assert parted(share=share).drawn(steps) == (len(target), len(numbers) - len(target))
    for first, last, wanted in ((0, 4, 0.25), (4, 6, 0.25), (6, 36, 0.5)):
        assert abs(sum(first <= n < last for n in target) - wanted * len(target)) < 1


def test_each_source_is_read_whole_before_it_is_read_again() -> None:
    target = [n for n in drawn(parted(share=0.0), 20) if n < 1000]
    laws, reviews = [n for n in target if n < 4], [n for n in target if 4 <= n < 6]
    assert all(sorted(laws[i : i + 4]) == [0, 1, 2, 3] for i in (0, 4, 8, 12))
    assert all(sorted(reviews[i : i + 2]) == [4, 5] for i in range(0, 20, 2))
    assert len({tuple(laws[i : i + 4]) for i in (0, 4, 8, 12)}) > 1


@given(step=st.integers(0, 300), seed=st.integers(0, 2**32))
def test_a_batch_of_several_sources_depends_on_seed_and_step_alone(step: int, seed: int) -> None:
    used = parted(seed)
    drawn(used, 3)
    assert (used.batch(step).tokens == parted(seed).batch(step).tokens).all()


def test_another_source_leaves_the_order_of_the_rest_as_it_is() -> None:
    more = (Part("added", 3, 0.2), *(Part(p.name, p.rows, p.share * 0.8) for p in PARTS))
    before = [n for n in drawn(parted(share=0.0), 30) if n >= 6]
    after = [n - 3 for n in drawn(parted(parts=more, share=0.0), 30) if n >= 9]
    assert after == before[: len(after)]


WORDS = st.sampled_from(["혈압", " ", " 고혈압이", "😀", "👨‍👩‍👧", "abc", "é", "\n", "   "])


@given(texts=st.lists(st.lists(WORDS, max_size=40).map("".join), max_size=5), size=st.integers(4, 64))
@example(["😀" * 20], 4)
@example(["한" * 20], 5)
def test_windows_joined_are_the_text_and_none_is_too_large(texts: list[str], size: int) -> None:
    cut = list(windows(texts, size, limit=10**9))
    assert "".join(cut) == "".join(texts)
    assert all(0 < len(w.encode()) <= size for w in cut)


@given(st.text(max_size=400), st.integers(1, 300))
def test_parts_joined_are_the_text(text: str, size: int) -> None:
    parts = list(parts_of(text, size))
    assert "".join(parts) == text
    assert all(parts)


@given(st.integers(1, 4000), st.integers(60, 600))
def test_parts_are_of_nearly_one_length(words: int, size: int) -> None:
    text = " ".join(f"혈압{n}" for n in range(words))
    lengths = [len(part.encode()) for part in parts_of(text, size)]
    assert max(lengths) - min(lengths) <= 2 * len(" 혈압9999".encode())
    assert len(lengths) == max(1, round(len(text.encode()) / size))
    assert not any(part.endswith(" ") for part in parts_of(text, size))


def test_windows_are_cut_at_a_space() -> None:
    assert list(windows(["고혈압 환자는 혈압을 잰다"], 24, 1000)) == ["고혈압 환자는", " 혈압을 잰다"]


@given(size=st.integers(4, 64), limit=st.integers(64, 600))
def test_windows_stop_at_the_limit(size: int, limit: int) -> None:
    texts = ["고혈압 환자는 혈압을 잰다 " * 10] * 3
    total = sum(len(w.encode()) for w in windows(texts, size, limit))
    assert limit - size < total <= limit


def test_the_first_window_is_given_even_when_it_is_over_the_limit() -> None:
    assert list(windows(["abcdefgh"], 8, 3)) == ["abcdefgh"]


def test_windows_too_small_to_go_on_are_refused() -> None:
    with pytest.raises(DataError, match="take 4 or more"):
        next(windows(["😀😀"], 3, 100))
    with pytest.raises(DataError, match="take 2 or more"):
        pack_documents([[11, 12]], 1, BOS)


@given(st.text(max_size=200), st.integers(0, 80))
def test_a_tail_ends_the_text_and_is_no_longer_than_asked(text: str, size: int) -> None:
    found = tail(text, size)
    assert text.endswith(found)
    assert len(found.encode()) <= size or found == text == ""


def test_a_tail_begins_at_a_space_where_there_is_one() -> None:
    assert tail("하나 둘 셋", 7) == " 셋"
    assert tail("하나둘셋", 7) == "둘셋"
    assert tail("짧다", 100) == "짧다"
