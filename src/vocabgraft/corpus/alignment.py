"""Word pairs out of translated phrases: which word stands for which is learnt from the phrases themselves.

    chronic obstructive pulmonary disease     chronic     만성
    만성 폐쇄성 폐질환                        obstructive 폐쇄성     pulmonary disease   폐질환

IBM model 1 (Brown et al., Computational Linguistics 19, 1993) tells how probable each word is as the translation of
each other one, once in either direction; the order of words, which Korean turns round, plays no part. In each phrase
every word then points at its best counterpart. A group of neighbours that point at one word, and it at one of them, is
a pair; it counts when enough phrases agree. No random number is drawn, so the same phrases give the same pairs.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import regex  # type: ignore[import-untyped,unused-ignore]

from vocabgraft.corpus.script import script_pattern

#: Share of the phrases with either half of a pair that must have both, linked (Dice).
AGREEMENT = 0.4
MAX_PHRASE_WORDS = 16
_ROUNDS = 8  # of expectation and maximisation; more move little
_LARGEST_GROUP = 3  # words that may stand for one word of the other language
_WORD = regex.compile(r"[\p{L}\p{M}\p{N}]+(?:[-'’][\p{L}\p{M}\p{N}]+)*")
# Longest first of those that end alike. A verb's endings (된, 한) stay on: 명시된 is not 명시.
# Hardly a noun of three syllables or more ends in these (전문의 does): they are taken off unseen stems too.
_SURELY = (
    "으로부터의",
    "로부터의",
    "으로부터",
    "에서의",
    "으로의",
    "로부터",
    "에서",
    "에의",
    "으로",
    "의",
    "에",
    "를",
    "와",
)
_PARTICLES = (*_SURELY, "을", "이", "가", "은", "는", "과", "로")
# At the edge of a group they belong to the phrase, not to the word.
_FUNCTION_WORDS = frozenset(
    ("a", "an", "the", "of", "in", "to", "by", "with", "and", "or", "for", "on", "at", "from", "due", "as", "is")
)
Words = tuple[str, ...]
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class WordPair:
    """A word, or up to three for one of the other language, and the places of the phrases that it was found in."""

    source: str
    target: str
    phrases: tuple[int, ...]


def words_of(text: str) -> Words:
    """The words of a text in small letters, in order; punctuation is left out."""
    return tuple(_WORD.findall(text.casefold()))


def without_particles(words: Sequence[Words], script: str, known: frozenset[str] = frozenset()) -> list[Words]:
    """Korean words without the particle they end in, where what is left is a word seen alone or in `known`.

    Words that are in `known` themselves stay (주치의, 회의), and so do those of other scripts.
    """
    if script_pattern(script).match("가") is None:
        return list(words)
    seen = {word for line in words for word in line} | known
    stems = {word: _stem(word, seen, known) for word in seen}
    # One that stands alone was written behind a bracket.
    return [tuple(stems[word] for word in line if word not in _SURELY) for line in words]


def split_phrases(
    phrases: Sequence[tuple[str, str]], *, script: str, support: int, known: frozenset[str] = frozenset()
) -> list[WordPair]:
    """Find the word pairs that at least `support` of the (source, target) phrases show, in order of their words.

    known: words of the target language that are sure to be words, which tells particles from endings. Phrases of
    more than 16 words a side are passed over. A target without a letter of the script is no pair.
    """
    sources = [words_of(source) for source, _ in phrases]
    targets = without_particles([words_of(target) for _, target in phrases], script, known)
    taught = [n for n, (s, t) in enumerate(zip(sources, targets, strict=True)) if _teaches(s, t)]
    links = _links([sources[n] for n in taught], [targets[n] for n in taught])
    found: dict[tuple[Words, Words], list[int]] = defaultdict(list)
    for n, pairs in zip(taught, links, strict=True):
        for pair in pairs:
            found[pair].append(n)
    likely = {pair: places for pair, places in found.items() if len(places) >= support}
    inside = script_pattern(script)
    counts = [_counted(lines, {pair[side] for pair in likely}) for side, lines in enumerate((sources, targets))]
    return [
        WordPair(" ".join(source), " ".join(target), tuple(places))
        for (source, target), places in sorted(likely.items())
        if 2 * len(places) >= AGREEMENT * (counts[0][source] + counts[1][target])
        and inside.search("".join(target))
        and not inside.search("".join(source))
        and all(len(word) > 1 for word in source)
    ]


def _teaches(source: Words, target: Words) -> bool:
    return 0 < len(source) <= MAX_PHRASE_WORDS and 0 < len(target) <= MAX_PHRASE_WORDS


def _stem(word: str, seen: set[str], known: frozenset[str]) -> str:
    if word in known:
        return word
    for particle in _PARTICLES:
        stem = word.removesuffix(particle)
        if stem == word:
            continue
        if stem in known or (len(stem) > 1 and stem in seen) or (len(word) > 2 and particle in _SURELY):
            return stem
    return word


def _counted(lines: Sequence[Words], groups: set[Words]) -> Counter[Words]:
    """In how many lines each group of neighbours stands."""
    found: Counter[Words] = Counter()
    for line in lines:
        runs = {line[a : a + n] for n in range(1, _LARGEST_GROUP + 1) for a in range(len(line) - n + 1)}
        found.update(runs & groups)
    return found


def _links(sources: Sequence[Words], targets: Sequence[Words]) -> list[set[tuple[Words, Words]]]:
    """The pairs of each phrase."""
    forward, backward = _best(sources, targets), _best(targets, sources)
    return [
        {(_trimmed(s[a : b + 1]), t[c : d + 1]) for a, b, c, d in _groups(to_source, to_target)}
        for s, t, to_source, to_target in zip(sources, targets, forward, backward, strict=True)
    ]


def _trimmed(words: Words) -> Words:
    """Without function words at either end; one that is all there is stays."""
    while len(words) > 1 and words[0] in _FUNCTION_WORDS:
        words = words[1:]
    while len(words) > 1 and words[-1] in _FUNCTION_WORDS:
        words = words[:-1]
    return words


def _groups(to_source: list[int], to_target: list[int]) -> list[tuple[int, int, int, int]]:
    """Runs of words (first and last of the source, of the target) that point at each other and at nothing else.

    to_source: for each target word the place of its best source word, or their number for none; to_target likewise.
    """
    sources, targets = len(to_target), len(to_source)
    number = list(range(sources + targets))  # sources, then targets; those of one number hang together
    edges = [(i, t) for t, i in enumerate(to_source) if i < sources]
    edges += [(i, t) for i, t in enumerate(to_target) if t < targets]
    for i, t in edges:
        old, new = number[sources + t], number[i]
        if old != new:
            number = [new if n == old else n for n in number]
    found = []
    for one in sorted({number[i] for i, t in enumerate(to_target) if t < targets and to_source[t] == i}):
        left = [i for i in range(sources) if number[i] == one]
        right = [i for i in range(targets) if number[sources + i] == one]
        together = all(side[-1] - side[0] < len(side) <= _LARGEST_GROUP for side in (left, right))
        if together and min(len(left), len(right)) == 1:
            found.append((left[0], left[-1], right[0], right[-1]))
    return found


def _best(sources: Sequence[Words], targets: Sequence[Words]) -> list[list[int]]:
    """For each target word of each phrase the place of its likeliest source word; their number for none of them."""
    source_ids, nothing = _numbered(sources)
    target_ids, _ = _numbered(targets)
    given = [np.append(ids, nothing) for ids in source_ids]
    lefts = np.concatenate([np.tile(s, len(t)) for s, t in zip(given, target_ids, strict=True)] or [_NONE])
    rights = np.concatenate([np.repeat(t, len(s)) for s, t in zip(given, target_ids, strict=True)] or [_NONE])
    sizes = np.repeat([len(s) for s in given], [len(t) for t in target_ids]).astype(np.int64)
    probable = _model_1(lefts, rights, np.repeat(np.arange(len(sizes)), sizes))
    found, at = [], 0
    for s, t in zip(given, target_ids, strict=True):
        block = probable[at : at + len(s) * len(t)].reshape(len(t), len(s))
        found.append(block.argmax(axis=1).tolist())
        at += block.size
    return found


_NONE = np.zeros(0, np.int64)


def _numbered(lines: Sequence[Words]) -> tuple[list[Ints], int]:
    numbers: dict[str, int] = {}
    found = [np.array([numbers.setdefault(word, len(numbers)) for word in line], np.int64) for line in lines]
    return found, len(numbers)


def _model_1(lefts: Ints, rights: Ints, place: Ints) -> npt.NDArray[np.float64]:
    """p(right | left) of every co-occurrence; those of one target word in one phrase share a `place`."""
    keys, pair = np.unique(lefts * (rights.max(initial=0) + 1) + rights, return_inverse=True)
    left = np.zeros(len(keys), np.int64)
    left[pair] = lefts
    probable = np.ones(len(keys))
    for _ in range(_ROUNDS):
        share = probable[pair]
        share /= np.bincount(place, share)[place]
        expected = np.bincount(pair, share, len(keys))
        probable = expected / np.bincount(left, expected)[left]
    return probable[pair]
