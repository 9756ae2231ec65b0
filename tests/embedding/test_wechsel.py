"""Static vectors find company; a known rotation is found again; too little evidence is no evidence."""

from __future__ import annotations

import pytest
import torch

from vocabgraft.embedding.vectors import TokenVectors, train_vectors
from vocabgraft.embedding.wechsel import align, wechsel_rows


def random_vectors(count: int, size: int, seed: int = 0) -> TokenVectors:
    vectors = torch.randn(count, size, generator=torch.Generator().manual_seed(seed))
    return TokenVectors(tuple(range(count)), torch.nn.functional.normalize(vectors, dim=1))


def rotation(size: int) -> torch.Tensor:
    return torch.linalg.qr(torch.randn(size, size, generator=torch.Generator().manual_seed(9)))[0]


def encode(word: str) -> list[int]:
    return [int(t) for t in word.split()]


PAIRS = [(str(i), str(i)) for i in range(40)]


def turned(source: TokenVectors) -> TokenVectors:
    """The same tokens, seen through a rotation: what alignment must undo."""
    return TokenVectors(source.ids, source.vectors @ rotation(source.vectors.shape[1]).T)


def test_a_known_rotation_is_found_again() -> None:
    source = random_vectors(40, 8)
    found = align(PAIRS, source, turned(source), encode, encode)
    torch.testing.assert_close(found.rotation, rotation(8), atol=1e-5, rtol=0)
    assert found.pairs == 40
    assert found.fit == pytest.approx(1.0, abs=1e-5)


def test_words_of_several_tokens_carry_the_alignment_too() -> None:
    source = random_vectors(40, 8)
    pairs = [(f"{i} {i + 1}", f"{i} {i + 1}") for i in range(20)]
    found = align(pairs, source, turned(source), encode, encode)
    torch.testing.assert_close(found.rotation, rotation(8), atol=1e-5, rtol=0)


def test_the_rotation_is_orthogonal_even_when_the_pairs_are_noise() -> None:
    found = align(PAIRS, random_vectors(40, 8), random_vectors(40, 8, seed=1), encode, encode)
    torch.testing.assert_close(found.rotation @ found.rotation.T, torch.eye(8), atol=1e-5, rtol=0)
    assert found.fit < 0.9


@pytest.mark.parametrize("pairs", [[], PAIRS[:7], [("99", "1"), ("", "")] * 50])
def test_fewer_usable_pairs_than_dimensions_give_no_alignment(pairs: list[tuple[str, str]]) -> None:
    source = random_vectors(40, 8)
    assert align(pairs, source, turned(source), encode, encode) is None


def test_vectors_of_unequal_width_are_aligned_in_the_narrower() -> None:
    source, target = random_vectors(40, 8), random_vectors(40, 6, seed=1)
    found = align(PAIRS, source, target, encode, encode)
    assert found.rotation.shape == (6, 6)
    rows = wechsel_rows(torch.randn(40, 16), [3], source, target, found, neighbours=4, temperature=0.1)
    assert rows[3][0].shape == (16,)


def test_a_row_is_the_weighted_mean_of_the_rows_of_its_neighbours() -> None:
    source = random_vectors(40, 8)
    target = turned(source)
    found = align(PAIRS, source, target, encode, encode)
    base = torch.randn(40, 16, generator=torch.Generator().manual_seed(2))
    rows = wechsel_rows(base, [5, 99], source, target, found, neighbours=3, temperature=0.1)
    assert set(rows) == {5}, "a token without a vector gets no row"
    row, parents, weights = rows[5]
    assert parents[0] == 5, "its own meaning is the nearest"
    assert weights == sorted(weights, reverse=True)
    assert sum(weights) == pytest.approx(1.0)
    torch.testing.assert_close(row, (base[parents] * torch.tensor(weights)[:, None]).sum(0))


def test_a_cold_softmax_copies_the_nearest_row() -> None:
    source = random_vectors(40, 8)
    target = turned(source)
    found = align(PAIRS, source, target, encode, encode)
    base = torch.randn(40, 16)
    row, _, _ = wechsel_rows(base, [5], source, target, found, neighbours=10, temperature=1e-3)[5]
    torch.testing.assert_close(row, base[5], atol=1e-5, rtol=0)


def company() -> list[list[int]]:
    """Two groups of tokens that never meet: 1-4 and 5-8; and 9, which is rare."""
    generator = torch.Generator().manual_seed(0)
    documents = []
    for _ in range(60):
        for first in (1, 5):
            documents.append((first + torch.randint(0, 4, (20,), generator=generator)).tolist())
    return [*documents, [9]]


def test_tokens_in_one_company_get_near_vectors() -> None:
    found = train_vectors(company(), size=4, min_count=3, seed=0)
    assert found.ids == tuple(range(1, 9))
    near = found.vectors @ found.vectors.T
    within = torch.cat([near[:4, :4].flatten(), near[4:, 4:].flatten()]).mean()
    assert within > near[:4, 4:].mean() + 0.3
    torch.testing.assert_close(found.vectors.norm(dim=1), torch.ones(8))


def test_the_same_corpus_gives_the_same_vectors() -> None:
    first, second = (train_vectors(company(), size=4, min_count=3, seed=0) for _ in range(2))
    assert torch.equal(first.vectors, second.vectors)


def test_documents_are_no_context_of_each_other() -> None:
    """Were they one stream, their order would show."""
    documents = [text[:3] for text in company()]
    forth, back = (train_vectors(d, size=4, min_count=3, seed=0) for d in (documents, documents[::-1]))
    assert torch.equal(forth.vectors, back.vectors)


@pytest.mark.parametrize("documents", [[], [[]], [[1, 2, 3]], [[4] * 50]])
def test_too_little_text_gives_no_vectors_and_no_error(documents: list[list[int]]) -> None:
    found = train_vectors(documents, size=8, min_count=3, seed=0)
    assert found.ids == ()
    assert len(found.vectors) == 0
    assert align(PAIRS, found, found, encode, encode) is None
