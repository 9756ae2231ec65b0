"""Kiwi tells names and glued particles; without the package one sentence says what to install."""

from __future__ import annotations

import builtins

import pytest

from vocabgraft.errors import TokenizerError
from vocabgraft.tokenizer import korean

PIECES = ["▁환자는", "▁서울에서", "▁김철수", "대한민국", "▁환자", "▁고혈압", "합니다", "는", "▁가"]


def test_nouns_with_a_particle_are_found() -> None:
    assert korean.glued_particles(PIECES) == {"▁환자는", "▁서울에서"}


def test_names_alone_are_found() -> None:
    assert korean.names(PIECES) == {"▁김철수", "대한민국"}


def test_no_piece_is_no_work() -> None:
    assert korean.names([]) == korean.glued_particles([]) == set()


def test_the_missing_package_is_named(monkeypatch) -> None:
    real = builtins.__import__

    def without_kiwi(name, *rest, **more):
        if name == "kiwipiepy":
            raise ImportError(name)
        return real(name, *rest, **more)

    korean._kiwi.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without_kiwi)
    with pytest.raises(TokenizerError, match=r"pip install 'vocabgraft\[korean\]'"):
        korean.names(PIECES)
