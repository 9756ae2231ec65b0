"""What a morphological analyser (Kiwi, extra `[korean]`) can tell of Korean words: names, particles, content words.

A name learnt from a small corpus is spent on one person or place; a noun with its particle (환자는) repeats what the
noun and the particle say. Both compress, so both filters are off by default.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

from vocabgraft.errors import TokenizerError
from vocabgraft.tokenizer.vocabulary import SPACE

_PARTICLE, _NOUN, _NAME = "J", "N", "NNP"
_CONTENT = ("NNG", "V", "MA", "XR")  # common nouns, verbs and adjectives, adverbs, roots


def names(pieces: Iterable[str]) -> set[str]:
    """Pieces that Kiwi reads as proper nouns alone (NNP: persons, places, organisations)."""
    return _those(pieces, lambda tags: all(tag == _NAME for tag in tags))


def glued_particles(pieces: Iterable[str]) -> set[str]:
    """Pieces that Kiwi reads as nouns followed by particles (J: 은 는 이 가 을 를 에서 …)."""
    return _those(pieces, lambda tags: len(tags) > 1 and tags[0][0] == _NOUN and tags[-1][0] == _PARTICLE)


def content_words(words: Iterable[str]) -> set[str]:
    """Words in which Kiwi finds a common noun, a verb, an adjective, an adverb or a root."""
    return _those(words, lambda tags: any(tag.startswith(_CONTENT) for tag in tags))


def _those(pieces: Iterable[str], judge: Callable[[list[str]], bool]) -> set[str]:
    pieces = list(pieces)
    analysed = _kiwi().tokenize([p.removeprefix(SPACE) for p in pieces])
    found = ((p, [token.tag for token in tokens]) for p, tokens in zip(pieces, analysed, strict=True))
    return {p for p, tags in found if tags and judge(tags)}


@cache
def _kiwi() -> Any:
    try:
        from kiwipiepy import Kiwi
    except ImportError as e:
        raise TokenizerError(
            "tokenizer.drop_names, tokenizer.drop_particles and data.dictionary_words = 'content' need kiwipiepy: "
            "pip install 'vocabgraft[korean]'"
        ) from e
    return Kiwi(num_workers=1)
