"""03-dictionary: merge the bilingual dictionaries, take phrases apart, and say how much the outcome covers."""

from __future__ import annotations

from collections import Counter
from typing import Any

from vocabgraft.corpus.dictionary import Pair, read_pairs, write_pairs
from vocabgraft.corpus.document import Tally
from vocabgraft.corpus.word_pairs import covered, frequent_words, merge_pairs
from vocabgraft.errors import ProofError
from vocabgraft.run import Licence
from vocabgraft.steps.context import Context, StepResult
from vocabgraft.steps.tokenizer import load_expansion
from vocabgraft.tokenizer import korean
from vocabgraft.tokenizer.count import WordCounts
from vocabgraft.tokenizer.measure import load_tokenizer

FILE = "dictionary.tsv"
_FREQUENT = 2000  # words of the target corpus that coverage is told of …
_LOOKED_AT = 50_000  # … out of so many forms of them


def dictionary(context: Context) -> StepResult:
    """Merge the dictionaries; each entry is kept, dropped for a reason, or a phrase that was taken apart."""
    data, reading = context.recipe.data, Tally()
    languages = ("en", data.language)
    pairs = (p for source in data.dictionary for p in read_pairs(source, reading, languages))
    content = None
    if data.dictionary_words == "content":
        content = korean.content_words if data.script == "Hangul" else list
    merged = merge_pairs(pairs, script=data.script, support=data.dictionary_support, content=content)
    reading.check()
    written = write_pairs(context.out / FILE, merged.pairs, languages=languages)
    if not written == merged.tally.kept + merged.new or merged.tally.read != reading.kept:
        raise ProofError(f"{FILE}: {written} pairs of {merged.tally.as_dict()} and {merged.new} of phrases; a bug")
    licences = Counter((pair.origin, pair.license or data.license) for pair in merged.pairs)
    metrics = {
        "pairs": written,
        "read": reading.as_dict(),
        "filter": merged.tally.as_dict(),
        "from_phrases": {"new": merged.new, "entries_already": merged.known},
        "several_translations": merged.several(),
        "domains": merged.domains,
        "licences": {f"{origin}: {license}": n for (origin, license), n in sorted(licences.items())},
    }
    bill = [Licence(origin, license, note="data: dictionary, pairs of it") for origin, license in sorted(licences)]
    return StepResult(metrics, bill)


def entries(context: Context) -> list[Pair]:
    """The pairs that the step wrote."""
    languages = ("en", context.recipe.data.language)
    return list(read_pairs(context.run.path("03-dictionary", FILE), Tally(), languages))


def coverage(context: Context) -> dict[str, dict[str, int]]:
    """How many of the target corpus's most frequent words, and of the new pieces, have an entry of their own."""
    pairs, script = entries(context), context.recipe.data.script
    counts = WordCounts.load(context.run.path("11-train-tokenizer", "words.parquet")).frame
    counts = counts.sort(["count", "word"], descending=[True, False]).head(_LOOKED_AT)
    frequent = frequent_words(counts.iter_rows(), pairs, script=script, most=_FREQUENT)
    expansion, folder = load_expansion(context)
    tokenizer = load_tokenizer(folder)
    pieces = {piece for i in expansion.ids if len(piece := tokenizer.decode([i]).strip()) > 1}
    told: dict[str, Any] = {"frequent words": frequent, "new pieces of two letters or more": pieces}
    return {name: {"words": len(words), "with_entry": covered(words, pairs)} for name, words in told.items()}
