"""Static vectors find company; a known rotation is found again; too little evidence is no evidence."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from vocabgraft.embedding.blend import Blend, blended
from vocabgraft.embedding.vectors import TokenVectors, train_vectors
from vocabgraft.embedding.wechsel import align, omp_blends, wechsel_blends


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


def test_precision_is_of_pairs_the_rotation_did_not_see() -> None:
    source = random_vectors(300, 8)
    pairs = [(str(i), str(i)) for i in range(300)]
    true = align(pairs, source, turned(source), encode, encode)
    assert 15 < true.held_out < 50
    assert true.precision == 1.0
    noise = align(pairs, source, random_vectors(300, 8, seed=1), encode, encode)
    assert noise.held_out == true.held_out
    assert noise.precision < 0.2
    both_right = align(
        [*pairs, *((str((i + 1) % 300), str(i)) for i in range(300))], source, turned(source), encode, encode
    )
    assert both_right.precision > 0.5, "any of a word's translations counts"
    assert align(PAIRS[:9], source, turned(source), encode, encode).precision is None


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
    blends = wechsel_blends([3], source, target, found, neighbours=4, temperature=0.1)
    assert len(blends[3].parents) == 4
    assert len(omp_blends([3], source, target, found, atoms=2)[3].parents) == 2


def test_a_blend_is_of_the_nearest_meanings() -> None:
    source = random_vectors(40, 8)
    target = turned(source)
    found = align(PAIRS, source, target, encode, encode)
    blends = wechsel_blends([5, 99], source, target, found, neighbours=3, temperature=0.1)
    assert set(blends) == {5}, "a token without a vector gets no blend"
    assert blends[5].parents[0] == 5, "its own meaning is the nearest"
    assert list(blends[5].weights) == sorted(blends[5].weights, reverse=True)
    assert sum(blends[5].weights) == pytest.approx(1.0)


def test_blends_are_those_of_a_straightforward_reference() -> None:
    """WECHSEL as its paper says it, in numpy and loops."""
    source, target = random_vectors(30, 6), random_vectors(30, 6, seed=4)
    found = align(PAIRS[:30], source, target, encode, encode)
    a, b = target.vectors.numpy(), source.vectors.numpy()
    u, _, vh = np.linalg.svd(a.T @ b)
    base = torch.randn(30, 5, generator=torch.Generator().manual_seed(2))
    blends = wechsel_blends(range(30), source, target, found, neighbours=4, temperature=0.3)
    rows = blended(base, [blends[i] for i in range(30)])
    for i in range(30):
        turned_ = a[i] @ (u @ vh)
        cosines = [float(turned_ @ v / np.linalg.norm(turned_) / np.linalg.norm(v)) for v in b]
        best = sorted(range(30), key=lambda j: -cosines[j])[:4]
        weights = np.exp([cosines[j] / 0.3 for j in best])
        expected = sum(w * base[j].numpy() for w, j in zip(weights / weights.sum(), best, strict=True))
        np.testing.assert_allclose(rows[i].numpy(), expected, atol=1e-5)


def test_matching_pursuit_finds_the_few_that_make_the_sum() -> None:
    source = random_vectors(60, 32)
    mixed = 0.8 * source.vectors[7] - 0.5 * source.vectors[19] + 0.4 * source.vectors[33]
    vectors = torch.cat([source.vectors, torch.nn.functional.normalize(mixed, dim=0)[None]])
    target = TokenVectors((*source.ids, 60), vectors)
    found = align([(str(i), str(i)) for i in range(60)], source, target, encode, encode)
    blend = omp_blends([60, 7], source, target, found, atoms=3)
    assert set(blend[60].parents) == {7, 19, 33}
    by_parent = dict(zip(blend[60].parents, blend[60].weights, strict=True))
    scale = float(mixed.norm())
    assert by_parent[7] * scale == pytest.approx(0.8, abs=1e-3)
    assert by_parent[19] * scale == pytest.approx(-0.5, abs=1e-3)
    assert blend[7].parents[0] == 7
    assert blend[7].weights[0] == pytest.approx(1.0, abs=1e-3)


def test_equal_source_vectors_and_zero_vectors_are_no_trouble() -> None:
    source = random_vectors(40, 8)
    vectors = source.vectors.clone()
    vectors[11] = vectors[12]
    target = turned(source)
    zero = TokenVectors(target.ids, target.vectors.clone())
    zero.vectors[5] = 0.0
    found = align(PAIRS, source, target, encode, encode)
    same = TokenVectors(source.ids, vectors)
    for blends in (
        wechsel_blends([5, 12], same, zero, found, neighbours=3, temperature=0.1),
        omp_blends([5, 12], same, zero, found, atoms=4),
    ):
        assert all(np.isfinite(b.weights).all() for b in blends.values())
        assert isinstance(blends[12], Blend)


def test_a_cold_softmax_copies_the_nearest_row() -> None:
    source = random_vectors(40, 8)
    target = turned(source)
    found = align(PAIRS, source, target, encode, encode)
    base = torch.randn(40, 16)
    blend = wechsel_blends([5], source, target, found, neighbours=10, temperature=1e-3)[5]
    torch.testing.assert_close(blended(base, [blend])[0], base[5], atol=1e-5, rtol=0)


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
