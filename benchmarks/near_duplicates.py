"""Near-duplicates: are planted edits found, is other text left alone, and at what speed?

    python benchmarks/near_duplicates.py            3,000 documents, 6,000 reviews, 6,000 English: 6 minutes
    python benchmarks/near_duplicates.py --quick    a quarter of them: 1 minute

Originals are Korean documentation, laws and reviews of ../shared/data, and English medical texts, of which thousands
follow a few templates; each of a share of them gets one edited copy.
What a copy shares with its original is known from a count of its own, with sets of strings. Those that share the
threshold or more are to be found. Precision is over every text that is left out: right where that count says so for
the pair. Apart from that: by kind of edit, whether the light ones (which people call the same text) are found and the
heavy ones are kept; and the pairs of two originals, which nobody planted, with how many words they have in common.
`datasketch` is measured beside, on the same runs with as many permutations, where it can be imported. Without the
data it says so and stops. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import time
import unicodedata
from collections import Counter
from collections.abc import Callable
from itertools import islice
from pathlib import Path
from typing import Any

from vocabgraft.corpus.clean import clean_text, split_long
from vocabgraft.corpus.document import Tally, read_source
from vocabgraft.corpus.near_duplicates import PERMUTATIONS, near_duplicates
from vocabgraft.evaluation.statistics import wilson
from vocabgraft.recipe_data import Data

DATA = Path("../shared/data")
FILES = {
    "msdocs": "ko/msdocs.jsonl.zst",
    "laws": "ko/laws.jsonl.zst",
    "reviews": "ko/nsmc_reviews.txt.zst",
    "english": "en/medical.jsonl.zst",
}
THRESHOLD = Data.model_fields["near_duplicates"].default
HEADER = "이 문서는 공개된 자료를 옮긴 것으로, 내용은 원문과 다를 수 있습니다. 무단으로 배포하지 마십시오.\n\n"
Edit = Callable[[str, random.Random, list[str]], str]


def words_replaced(share: float) -> Edit:
    def edit(text: str, draw: random.Random, words: list[str]) -> str:
        return " ".join(draw.choice(words) if draw.random() < share else w for w in text.split(" "))

    return edit


def moved(text: str, draw: random.Random, words: list[str]) -> str:
    parts = text.split("\n")
    return "\n".join(draw.sample(parts, len(parts)))


def spaced(text: str, draw: random.Random, words: list[str]) -> str:
    return "".join("" if c == " " and draw.random() < 0.3 else c for c in text).replace(".", " . ")


def sentence_gone(text: str, draw: random.Random, words: list[str]) -> str:
    parts = text.split(". ")
    gone = draw.randrange(len(parts))
    return ". ".join(p for n, p in enumerate(parts) if n != gone or len(parts) < 8)


def headed(text: str, draw: random.Random, words: list[str]) -> str:
    return HEADER + text


def decomposed(text: str, draw: random.Random, words: list[str]) -> str:
    return unicodedata.normalize("NFD", text)


def half_other(text: str, draw: random.Random, words: list[str]) -> str:
    return text[: len(text) // 2] + " ".join(draw.choices(words, k=len(text) // 8))


LIGHT: dict[str, Edit] = {
    "1 word in 50 replaced": words_replaced(0.02),
    "paragraphs in another order": moved,
    "spaces and stops": spaced,
    "a sentence gone": sentence_gone,
    "a header": headed,
    "decomposed": decomposed,
}
HEAVY: dict[str, Edit] = {"1 word in 4 replaced": words_replaced(0.25), "half is other text": half_other}
BETWEEN: dict[str, Edit] = {"1 word in 20 replaced": words_replaced(0.05), "1 in 12": words_replaced(0.08)}


def shingles(text: str) -> set[str]:
    """The runs of letters, counted as the library does but with strings."""
    text = "".join(c for c in unicodedata.normalize("NFKC", text).casefold() if c.isalnum())
    size = 4 if sum("가" <= c <= "힣" or "一" <= c <= "鿿" for c in text) >= 0.3 * len(text) else 10
    return {text[n : n + size] for n in range(len(text) - size + 1)}


def jaccard(one: set[str], other: set[str]) -> float:
    return len(one & other) / max(1, len(one | other))


def common_words(one: str, other: str) -> float:
    a, b = Counter(one.split()), Counter(other.split())
    return (a & b).total() / max(1, (a | b).total())


def originals(name: str, count: int) -> list[str]:
    """Texts as step 04 has them, no two the same."""
    found = read_source(str(DATA / FILES[name]), language="ko", license="", tally=Tally())
    texts = (t for d in found for t in split_long(clean_text(d.text), 20_000) if len(t) >= 40)
    return list(dict.fromkeys(islice(texts, count)))


def planted(texts: list[str], kinds: dict[str, Edit]) -> list[tuple[str, int, str]]:
    """(kind, place of the original, edited text) of every second text; a kind that changes nothing is left out."""
    draw, names = random.Random(0), list(kinds)
    words = [w for t in texts[:500] for w in t.split()]
    found = [(names[n // 2 % len(names)], n) for n in range(0, len(texts), 2)]
    copies = [(kind, n, kinds[kind](texts[n], draw, words)) for kind, n in found]
    return [(kind, n, copy) for kind, n, copy in copies if copy != texts[n]]


def rate(right: int, of: int) -> dict[str, float]:
    found = wilson(right, of)
    return {"share": round(right / max(1, of), 4), "low": round(found.low, 4), "of": of}


def measured(texts: list[str]) -> dict[str, Any]:
    copies = planted(texts, LIGHT | BETWEEN | HEAVY)
    every = [*texts, *(copy for _, _, copy in copies)]
    started = time.process_time()
    found = near_duplicates(every, THRESHOLD)
    seconds = time.process_time() - started
    pairs = {frozenset(pair) for pair in found.items()}
    known = [jaccard(shingles(texts[n]), shingles(copy)) for _, n, copy in copies]
    place = [len(texts) + n for n in range(len(copies))]
    # A copy may be left out for another text than its original, or its original for it: one of the two is gone.
    gone = [p in found or n in found for p, (_, n, _) in zip(place, copies, strict=True)]
    wanted = [share >= THRESHOLD for share in known]
    right = sum(jaccard(shingles(every[a]), shingles(every[b])) >= THRESHOLD - 1e-9 for a, b in found.items())
    kinds = {
        kind: rate(sum(g for g, (k, _, _) in zip(gone, copies, strict=True) if k == kind),
                   sum(k == kind for k, _, _ in copies))
        for kind in LIGHT | BETWEEN | HEAVY
    }  # fmt: skip
    kinds = {kind: found for kind, found in kinds.items() if found["of"]}
    unplanted = [sorted(pair) for pair in pairs if max(pair) < len(texts)]
    size = sum(len(t.encode()) for t in every) / 1e6
    return {
        "texts": len(every),
        "mb": round(size, 1),
        "recall": rate(sum(g and w for g, w in zip(gone, wanted, strict=True)), sum(wanted)),
        "precision": rate(right, len(found)),
        "found_by_kind": kinds,
        "of_two_originals": {
            "pairs": len(unplanted),
            "share_most_words": sum(common_words(every[a], every[b]) >= 0.6 for a, b in unplanted),
            "examples": [[every[n][:60] for n in pair] for pair in unplanted[:2]],
        },
        "mb_s_core": round(size / seconds, 2),
        "datasketch": peer(every[: 200 if len(every[0]) > 300 else 2000]),
    }


def peer(texts: list[str]) -> dict[str, Any] | None:
    """datasketch with the same runs, permutations and threshold: MB per CPU-second and how many texts it leaves out."""
    try:
        from datasketch import MinHash, MinHashLSH
    except ImportError:
        return None
    size, index, left = sum(len(t.encode()) for t in texts) / 1e6, MinHashLSH(THRESHOLD, PERMUTATIONS), 0
    started = time.process_time()
    for n, text in enumerate(texts):
        one = MinHash(PERMUTATIONS)
        one.update_batch([s.encode() for s in shingles(text)])
        left += bool(index.query(one))
        index.insert(str(n), one)
    return {"mb_s_core": round(size / (time.process_time() - started), 2), "texts": len(texts), "left_out": left}


def main() -> None:
    """Plant, look, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a quarter of the texts")
    quick = parser.parse_args().quick
    if not DATA.is_dir():
        print(json.dumps({"skipped": f"{DATA} is not here; this benchmark needs the development data"}))
        return
    counts = {"msdocs": 2000, "laws": 1000, "reviews": 6000, "english": 6000}
    found = {}
    for name, count in counts.items():
        found[name] = measured(originals(name, count // 4 if quick else count))
        print(name, json.dumps(found[name], ensure_ascii=False, indent=1), flush=True)
    print(
        json.dumps(
            {
                "threshold": THRESHOLD,
                "recall": min(f["recall"]["share"] for f in found.values()),
                "precision": min(f["precision"]["share"] for f in found.values()),
                "mb_s_core": {name: f["mb_s_core"] for name, f in found.items()},
                "datasketch_mb_s_core": {name: (f["datasketch"] or {}).get("mb_s_core") for name, f in found.items()},
                "by_source": {name: {k: f[k] for k in ("recall", "precision", "texts")} for name, f in found.items()},
            }
        )
    )


if __name__ == "__main__":
    main()
