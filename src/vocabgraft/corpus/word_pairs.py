"""One dictionary out of many: filtered, each entry once, phrases taken apart, and how much of a vocabulary it covers.

An entry is kept, dropped for a reason, or is a phrase whose words are pairs of their own (`alignment.py`); nothing else
happens to it. A kept entry has the licence of its own work. A pair found in phrases has the licences of all of them.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass

from vocabgraft.corpus.alignment import MAX_PHRASE_WORDS, WordPair, split_phrases, without_particles, words_of
from vocabgraft.corpus.dictionary import Pair
from vocabgraft.corpus.document import Tally
from vocabgraft.corpus.script import script_pattern

MAX_WORDS = 4  # a side: more is a title or a sentence, which aligns no two vectors
SPLIT, UNSPLIT = "split into words", "a phrase that gives no word"
_CONTENT = {
    *("noun", "n", "verb", "v", "adjective", "adj", "adverb", "adv"),
    *("명사", "동사", "형용사", "부사", "nng", "vv", "va", "mag"),
}
Key = tuple[str, str]
#: Tells of words of the target language which ones are content words.
Content = Callable[[Collection[str]], Collection[str]]


@dataclass(frozen=True)
class Merged:
    """The pairs: entries in the order of their sources, then what phrases gave; and the account of what was read.

    new: pairs that phrases gave; known: those of them that were entries already. domains: for each domain how many of
    the words that are frequent in it have an entry of their own, before phrases were split and after.
    """

    pairs: list[Pair]
    tally: Tally
    new: int
    known: int
    domains: dict[str, dict[str, int]]

    def several(self) -> dict[str, int]:
        """How many words have more than one translation, each way: kept, since words have several senses."""
        found = {}
        for name, side in (("source", 0), ("target", 1)):
            others: dict[str, set[str]] = defaultdict(set)
            for key in map(_key, self.pairs):
                others[key[side]].add(key[1 - side])
            found[name] = sum(len(words) > 1 for words in others.values())
        return found


def merge_pairs(pairs: Iterable[Pair], *, script: str, support: int, content: Content | None = None) -> Merged:
    """Filter entries, keep each once (capitals aside), and take phrases apart where `support` of them agree.

    support 0: phrases are dropped instead. content: keep content words alone, by their part of speech where it is
    given, else by this. Reasons: 'no target script', 'target script on both sides', 'too long', 'duplicate', 'part of
    speech', and of phrases 'split into words' and 'a phrase that gives no word'.
    """
    tally = Tally()
    entries, phrases = _sorted_out(pairs, script, support, tally)
    kept = _content_words(entries, content, tally) if content else entries
    every = [*(pair for _, pair in kept), *(pair for _, pair in phrases)]
    known = frozenset(pair.target.casefold() for _, pair in kept if " " not in pair.target)
    texts = [(pair.source, pair.target) for pair in every]
    words = split_phrases(texts, script=script, support=support, known=known) if support else []
    there = {_key(pair) for _, pair in kept}
    new = [_joined(word, every) for word in words if (word.source, word.target) not in there]
    used = {n - len(kept) for word in words for n in word.phrases}
    for n, (number, _) in enumerate(phrases):
        tally.drop(SPLIT if n in used else UNSPLIT, f"pair:{number}")
    for _ in kept:
        tally.keep()
    tally.check()
    whole = [*(pair for _, pair in kept), *new]
    domains = _domains(every, whole, len(kept), script, max(2, support), known)
    return Merged(whole, tally, len(new), len(words) - len(new), domains)


def covered(words: Collection[str], pairs: Iterable[Pair]) -> int:
    """How many of the words are the translation in some pair (capitals aside)."""
    targets = {pair.target.casefold() for pair in pairs}
    return sum(word.casefold() in targets for word in words)


def frequent_words(counts: Iterable[tuple[str, int]], pairs: Iterable[Pair], *, script: str, most: int) -> list[str]:
    """The most frequent words of counted text, as a dictionary would list them: of the script, two letters or more,
    particles taken off; most frequent first, ties in order of letters."""
    known = frozenset(pair.target.casefold() for pair in pairs)
    inside, lines, times = script_pattern(script), [], []
    for text, count in counts:
        lines.append(words_of(text))
        times.append(count)
    found: Counter[str] = Counter()
    for line, count in zip(without_particles(lines, script, known), times, strict=True):
        for word in line:
            if len(word) > 1 and inside.search(word):
                found[word] += count
    return sorted(found, key=lambda word: (-found[word], word))[:most]


def _key(pair: Pair) -> Key:
    return pair.source.casefold(), pair.target.casefold()


def _sorted_out(
    pairs: Iterable[Pair], script: str, support: int, tally: Tally
) -> tuple[list[tuple[int, Pair]], list[tuple[int, Pair]]]:
    """Numbered entries of few words, and phrases."""
    inside, seen = script_pattern(script), set[Key]()
    entries: list[tuple[int, Pair]] = []
    phrases: list[tuple[int, Pair]] = []
    for number, pair in enumerate(pairs, start=1):
        length = max(len(pair.source.split()), len(pair.target.split()))
        reason = ""
        if not inside.search(pair.target):
            reason = "no target script"
        elif inside.search(pair.source):
            reason = "target script on both sides"
        elif length > (MAX_PHRASE_WORDS if support else MAX_WORDS):
            reason = "too long"
        elif _key(pair) in seen:
            reason = "duplicate"
        if reason:
            tally.drop(reason, f"pair:{number}")
            continue
        seen.add(_key(pair))
        (entries if length <= MAX_WORDS else phrases).append((number, pair))
    return entries, phrases


def _content_words(entries: list[tuple[int, Pair]], content: Content, tally: Tally) -> list[tuple[int, Pair]]:
    told = {pair.target for _, pair in entries if not pair.pos}
    wanted, kept = set(content(sorted(told))), []
    for number, pair in entries:
        if pair.pos.casefold().rstrip(".") in _CONTENT if pair.pos else pair.target in wanted:
            kept.append((number, pair))
        else:
            tally.drop("part of speech", f"pair:{number}")
    return kept


def _joined(word: WordPair, phrases: Sequence[Pair]) -> Pair:
    """A pair with all licences and origins of the phrases that it was found in, and the domain of most of them."""
    taught = [phrases[n] for n in word.phrases]
    domains = Counter(pair.domain for pair in taught)
    domain = min(domains, key=lambda name: (-domains[name], name))
    return Pair(word.source, word.target, domain, _all({p.license for p in taught}), _all({p.origin for p in taught}))


def _all(names: set[str]) -> str:
    return " + ".join(sorted(name or "unknown" for name in names)) if names != {""} else ""


def _domains(
    taught: Sequence[Pair], pairs: Sequence[Pair], entries: int, script: str, least: int, known: frozenset[str]
) -> dict[str, dict[str, int]]:
    """Coverage of the words that occur in `least` entries or phrases of a domain; `entries` pairs are no phrase's."""
    inside, found = script_pattern(script), {}
    lines = without_particles([words_of(pair.target) for pair in taught], script, known)
    counts: dict[str, Counter[str]] = defaultdict(Counter)
    for pair, line in zip(taught, lines, strict=True):
        counts[pair.domain].update(word for word in set(line) if len(word) > 1 and inside.search(word))
    for domain, words in sorted(counts.items()):
        frequent = [word for word, n in words.items() if n >= least]
        found[domain or "none"] = {
            "words": len(frequent),
            "with_entry_before": covered(frequent, pairs[:entries]),
            "with_entry": covered(frequent, pairs),
        }
    return found
