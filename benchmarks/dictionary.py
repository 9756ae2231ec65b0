"""Phrases of a dictionary taken apart: are the pairs right, what do they cover, and do word vectors align better?

    python benchmarks/dictionary.py            ../shared/data/bilingual/en_ko.tsv, medical law, Gemma 3 270M: 2 CPU-min
    python benchmarks/dictionary.py --quick    every fourth entry, a quarter of the text

Precision: pairs are learnt from the disease titles alone, told nothing of Wiktionary's entries; of the pairs whose
source word Wiktionary has, how many have a translation that it lists too (word for word, or one inside the other). It
lists few of a word's translations, so this is a lower bound. Coverage: of the words frequent in medical law and of new
pieces learnt from it, before and after. WECHSEL: one rotation from the old dictionary and one from the new, each asked
for the same words of the old one, which neither saw, among the same source words (precision@1). Without the data it
says so and stops. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from bases import gemma
from expanded import LAW, expanded, korean

from vocabgraft.corpus.alignment import split_phrases
from vocabgraft.corpus.dictionary import Pair, read_pairs
from vocabgraft.corpus.document import Tally, read_source
from vocabgraft.corpus.script import script_pattern
from vocabgraft.corpus.word_pairs import covered, frequent_words, merge_pairs
from vocabgraft.embedding.vectors import TokenVectors, train_vectors
from vocabgraft.embedding.wechsel import align
from vocabgraft.evaluation.statistics import wilson
from vocabgraft.tokenizer.boundary import word_rule
from vocabgraft.tokenizer.count import count_words
from vocabgraft.tokenizer.measure import encode, load_tokenizer

PAIRS = Path("../shared/data/bilingual/en_ko.tsv")
ENGLISH = Path("../shared/data/en/medical.jsonl.zst")
WIKTIONARY, SCRIPT = "wechsel_korean", "Hangul"
SUPPORTS = (2, 3, 5, 10)
SHOWN = 100
Vector = Callable[[str], "torch.Tensor | None"]


def entries(quick: bool) -> list[Pair]:
    tally = Tally()
    found = list(read_pairs(PAIRS, tally))
    tally.check()
    return found[::4] if quick else found


def precision(pairs: list[Pair], show: int) -> dict[str, Any]:
    """Pairs out of the titles by how many must agree, beside what Wiktionary says of the same source word."""
    inside = script_pattern(SCRIPT)
    titles = [(p.source, p.target) for p in pairs if p.domain == "medical" and inside.search(p.target)]
    listed: dict[str, set[str]] = defaultdict(set)
    for pair in pairs:
        if pair.origin == WIKTIONARY:
            listed[pair.source.casefold()].add(pair.target)
    told: dict[str, Any] = {"titles": len(titles)}
    for support in SUPPORTS:
        began = time.process_time()
        found = split_phrases(titles, script=SCRIPT, support=support)
        asked = [p for p in found if p.source in listed]
        exact = sum(p.target in listed[p.source] for p in asked)
        alike = sum(any(p.target in word or word in p.target for word in listed[p.source]) for p in asked)
        low, high = wilson(exact, len(asked)).low, wilson(exact, len(asked)).high
        told[str(support)] = {
            "pairs": len(found),
            "in_wiktionary": len(asked),
            "as_it_says": round(exact / max(1, len(asked)), 4),
            "interval": [round(low, 4), round(high, 4)],
            "one_inside_the_other": round(alike / max(1, len(asked)), 4),
            "seconds": round(time.process_time() - began, 1),
        }
        if support == 3 and show:
            for some in random.Random(0).sample(found, min(show, len(found))):
                print(f"{some.source}\t{some.target}\t{len(some.phrases)}")
    return told


def coverage(
    before: list[Pair], after: list[Pair], texts: list[str], tokenizer: Any, ids: Sequence[int]
) -> dict[str, Any]:
    counts = count_words(texts, word_rule(tokenizer)).frame.sort(["count", "word"], descending=[True, False])
    words = frequent_words(counts.head(50_000).iter_rows(), after, script=SCRIPT, most=2000)
    pieces = {piece for i in ids if len(piece := tokenizer.decode([i]).strip()) > 1}
    told = {"frequent words": words, "new pieces": pieces}
    return {
        name: {"of": len(some), "before": covered(some, before), "after": covered(some, after)}
        for name, some in told.items()
    }


def vector_of(tokenizer: Any, vectors: TokenVectors) -> Vector:
    place = vectors.place

    def look_up(word: str) -> torch.Tensor | None:
        ids = encode(tokenizer, [" " + word])[0]
        if not ids or any(i not in place for i in ids):
            return None
        return torch.nn.functional.normalize(vectors.vectors[[place[i] for i in ids]].mean(0), dim=0)

    return look_up


def wechsel(before: list[Pair], after: list[Pair], base: Any, new: Any, texts: list[str], most: int) -> dict[str, Any]:
    """Both dictionaries as rotations, asked for the old one's words of one hash in ten."""
    english = (d.text for d in read_source(str(ENGLISH), language="en", license="", tally=Tally()))
    source, target = (
        train_vectors((encode(tokenizer, [text])[0] for text in islice(some, most)), size=64, min_count=5, seed=1)
        for tokenizer, some in ((base, english), (new, texts))
    )
    of_source, of_target = vector_of(base, source), vector_of(new, target)
    asked = {(p.source, p.target) for p in before if hashlib.sha256(p.target.encode()).digest()[0] % 10 == 0}
    asked = {pair for pair in asked if of_source(pair[0]) is not None and of_target(pair[1]) is not None}
    hidden = {target for _, target in asked}
    words = sorted({p.source for p in before if of_source(p.source) is not None})
    matrix = torch.stack([v for word in words if (v := of_source(word)) is not None])
    told: dict[str, Any] = {"asked": len(hidden), "among": len(words)}
    for name, pairs in (("before", before), ("after", after)):
        seen = [(p.source, p.target) for p in pairs if p.target not in hidden]
        both = (source, target, lambda word: encode(base, [" " + word])[0], lambda word: encode(new, [" " + word])[0])
        found, alone = align(seen, *both), align([(p.source, p.target) for p in pairs], *both)
        if found is None or alone is None:
            told[name] = {"pairs": 0}
            continue
        right = 0
        for word in sorted(hidden):
            vector = of_target(word)
            assert vector is not None
            nearest = (matrix[:, : len(found.rotation)] @ (vector[: len(found.rotation)] @ found.rotation)).argsort(
                descending=True
            )
            right += any((words[n], word) in asked for n in nearest[:1].tolist())
        told[name] = {"dictionary": len(pairs), "pairs": alone.pairs, "fit": round(alone.fit, 4), "right": right}
        told[name]["precision_at_1_of_its_own"] = None if alone.precision is None else round(alone.precision, 4)
    return told


def main() -> None:
    """Learn, compare, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a quarter of the entries and of the text")
    parser.add_argument(
        "--show", type=int, default=0, metavar="N", help="print N pairs drawn by lot, to be judged by eye"
    )
    arguments = parser.parse_args()
    if not PAIRS.is_file() or not LAW.is_file():
        print(json.dumps({"skipped": "../shared/data is not here; this benchmark needs the development data"}))
        return
    pairs = entries(arguments.quick)
    found: dict[str, Any] = {"entries": len(pairs), "split": precision(pairs, arguments.show)}
    began = time.process_time()
    old, new = (merge_pairs(pairs, script=SCRIPT, support=support) for support in (0, 3))
    found["merge_seconds"] = round(time.process_time() - began, 1)
    for name, merged in (("before", old), ("after", new)):
        found[name] = {"pairs": len(merged.pairs), "dropped": merged.tally.as_dict()["dropped"]}
    found["after"] |= {"new": new.new, "known": new.known, "domains": new.domains}
    texts = korean(str(LAW))[0]
    base, folder = gemma(), expanded(gemma(), "medical_law", texts)
    texts = texts[::4] if arguments.quick else texts
    before, after = load_tokenizer(base), load_tokenizer(folder)
    ids = [i for i in range(after.get_vocab_size()) if before.id_to_token(i) != after.id_to_token(i)]
    found["coverage"] = coverage(old.pairs, new.pairs, texts, after, ids)
    most = 5_000 if arguments.quick else 20_000
    found["wechsel"] = wechsel(old.pairs, new.pairs, before, after, texts, most)
    print(json.dumps(found, ensure_ascii=False))


if __name__ == "__main__":
    main()
