"""Memory of counting words: a synthetic corpus that is streamed, with as many different words as real text has.

    python benchmarks/tokenizer_memory.py             10 GB
    python benchmarks/tokenizer_memory.py --quick     0.5 GB, at most 3 minutes

Words are drawn by Zipf's law from 50 million: 10 GB hold some 35 million different ones. `peak_gb` is the whole
process, with the corpus being made in it. `exact`: as many words were counted as were made. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import sys
import time
from collections.abc import Iterator

import numpy as np

from vocabgraft.tokenizer.boundary import WordRule
from vocabgraft.tokenizer.count import count_words

WORDS = 50_000_000
SYLLABLES = 11_172
LETTERS, BYTES = 5, 13  # a space and four syllables
TOGETHER = 400_000  # words of one document: 5 MB


def corpus(size: int) -> Iterator[str]:
    """Documents of `size` bytes in all."""
    random = np.random.default_rng(1)
    for _ in range(size // (BYTES * TOGETHER)):
        ranks = np.power(WORDS, random.random(TOGETHER)).astype(np.int64)  # log-uniform: Zipf with exponent 1
        letters = np.full((TOGETHER, LETTERS), ord(" "), np.uint16)
        for place, digit in enumerate((ranks, ranks // SYLLABLES, ranks * 7919, ranks * 104_729), 1):
            letters[:, place] = 0xAC00 + digit % SYLLABLES
        yield letters.tobytes().decode("utf-16-le")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="0.5 GB")
    size = 500_000_000 if parser.parse_args().quick else 10_000_000_000
    began = time.monotonic()
    counts = count_words(corpus(size), WordRule(r" *[^ ]+| +", "words with the spaces before them"), threads=2)
    seconds = time.monotonic() - began
    print(
        json.dumps(
            {
                "gb": size / 1e9,
                "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
                "seconds": round(seconds, 1),
                "mb_s": round(size / 1e6 / seconds, 1),
                "different_words": len(counts),
                "exact": counts.total == size // (BYTES * TOGETHER) * TOGETHER,
                "cores": os.cpu_count(),
            }
        )
    )


if __name__ == "__main__":
    sys.exit(main())
