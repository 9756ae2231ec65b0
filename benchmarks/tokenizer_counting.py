"""Token counts of a corpus: words counted once and encoded once, beside encoding everything with `tokenizers`.

    python benchmarks/tokenizer_counting.py             all of ../shared/data/ko, every tokenizer family
    python benchmarks/tokenizer_counting.py --quick     the first 20 MB, at most 3 minutes

One thread each, CPU-seconds, texts in memory before the clock starts. `equal` is true when the counts of every id
agree exactly. Speed and `ratio` are of counting words and encoding them, to the same token counts that the peers give;
`ratio_counting` is of counting alone. The peers (`tokenizers`; gigatoken, when installed) encode a sample of the
corpus, because all of it would take them most of an hour; equality is checked on that sample. Last line: one JSON
object.
"""

from __future__ import annotations

import os

os.environ["RAYON_NUM_THREADS"] = os.environ["POLARS_MAX_THREADS"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import argparse
import json
import resource
import statistics
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from bases import gemma, smollm2
from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

from vocabgraft.corpus.document import Tally, read_source
from vocabgraft.tokenizer.boundary import LLAMA3, QWEN2, word_rule
from vocabgraft.tokenizer.count import count_words, token_counts
from vocabgraft.tokenizer.measure import load_tokenizer

DATA = Path("../shared/data/ko")
FILES = ("medical_law.jsonl.zst", "nsmc_reviews.txt.zst", "msdocs.jsonl.zst", "laws.jsonl.zst")
ROUNDS = 3
PEERS = ("encode_batch", "encode_batch_fast")  # the second leaves offsets out


def corpus(limit: int) -> list[str]:
    """Documents of all files in turn, up to `limit` bytes."""
    found, size = [], 0
    for name in FILES:
        room = limit // len(FILES) if limit < 1 << 30 else 1 << 40
        took = 0
        for document in read_source(str(DATA / name), language="ko", license="", tally=Tally()):
            found.append(document.text)
            took += len(document.text.encode())
            if took > room:
                break
        size += took
    return found


def families(texts: list[str]) -> Iterator[tuple[str, Tokenizer]]:
    """Gemma 3 and SmolLM2 as they ship; Llama 3 and Qwen by their patterns, with merges learnt here."""
    yield "gemma-3", load_tokenizer(gemma())
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    isolated = pre_tokenizers.Split
    yield "llama-3 style", learn([isolated(Regex(LLAMA3), "isolated"), plain], texts)
    yield "qwen style", learn([isolated(Regex(QWEN2), "isolated"), plain], texts, normalizers.NFC())
    yield "smollm2", load_tokenizer(smollm2())


def learn(parts: list[Any], texts: list[str], normalizer: Any = None) -> Tokenizer:
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer, tok.decoder = pre_tokenizers.Sequence(parts), decoders.ByteLevel()
    if normalizer is not None:
        tok.normalizer = normalizer
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=20_000, initial_alphabet=alphabet, show_progress=False)
    tok.train_from_iterator(texts[:200], trainer)
    return tok


def everything(tokenizer: Tokenizer, texts: list[str], *, offsets: bool) -> tuple[float, np.ndarray]:
    """The peer: encode all, count all. CPU-seconds (median), counts. `encode_batch` also tells where tokens stand."""
    encode = tokenizer.encode_batch if offsets else tokenizer.encode_batch_fast
    spent = []
    for _ in range(ROUNDS):
        found = np.zeros(max(tokenizer.get_vocab().values()) + 1, np.int64)
        began = time.process_time()
        for start in range(0, len(texts), 256):
            for encoding in encode(texts[start : start + 256], add_special_tokens=False):
                found += np.bincount(encoding.ids, minlength=len(found))
        spent.append(time.process_time() - began)
    return statistics.median(spent), found


def gigatoken(tokenizer: Tokenizer, texts: list[str]) -> tuple[float, np.ndarray] | None:
    """The fastest encoder known for Gemma's vocabulary, if it is installed and takes this one: CPU-seconds, counts."""
    try:
        import gigatoken as peer

        fast = peer.Tokenizer(tokenizer)
    except (ImportError, ValueError, RuntimeError, TypeError) as e:
        print(f"gigatoken: {e}", file=sys.stderr)
        return None
    spent = []
    for _ in range(ROUNDS):
        found = np.zeros(max(tokenizer.get_vocab().values()) + 1, np.int64)
        began = time.process_time()
        for start in range(0, len(texts), 256):
            ids = peer_ids(fast.encode_batch(texts[start : start + 256]))
            found += np.bincount(ids, minlength=len(found))
        spent.append(time.process_time() - began)
    return statistics.median(spent), found


def peer_ids(rows: Any) -> np.ndarray:
    """All ids of an awkward array, one after the other."""
    import awkward

    return awkward.to_numpy(awkward.flatten(rows)).astype(np.int64)


def measure(tokenizer: Tokenizer, texts: list[str], sample: list[str]) -> dict[str, Any]:
    rule = word_rule(tokenizer)
    size, part = (sum(len(t.encode()) for t in x) / 1e6 for x in (texts, sample))
    count, total = [], []  # CPU-seconds
    for _ in range(ROUNDS):
        began = time.process_time()
        counts = count_words(texts, rule)
        counted = time.process_time()
        token_counts(tokenizer, counts)
        count.append(counted - began)
        total.append(time.process_time() - began)
    peers = {name: everything(tokenizer, sample, offsets=name == "encode_batch") for name in PEERS}
    ours = token_counts(tokenizer, count_words(sample, rule))
    fast = gigatoken(tokenizer, sample)
    speed, both = (size / statistics.median(x) for x in (count, total))
    hf = {name: part / seconds for name, (seconds, _) in peers.items()}

    def times(seconds: list[float], found: float) -> list[float]:
        """How many times faster: median, least, most."""
        return [round(size / x / found, 1) for x in (statistics.median(seconds), max(seconds), min(seconds))]

    return {
        "mb": round(size, 1),
        "counting_mb_s": round(speed, 1),
        "counting_and_encoding_mb_s": round(both, 1),
        "hf_mb_s": {name: round(found, 2) for name, found in hf.items()},
        "gigatoken_mb_s": round(part / fast[0], 2) if fast else None,
        "gigatoken_equal": bool(np.array_equal(ours, fast[1])) if fast else None,
        "ratio": {name: times(total, found) for name, found in hf.items()},
        "ratio_counting": {name: times(count, found) for name, found in hf.items()},
        "different_words": len(counts),
        "equal": all(bool(np.array_equal(ours, by_hand)) for _, by_hand in peers.values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="20 MB")
    arguments = parser.parse_args()
    if not DATA.is_dir():
        print(json.dumps({"skipped": f"{DATA} is not here; this benchmark needs the development data"}))
        return
    texts = corpus(20_000_000 if arguments.quick else 1 << 40)
    sample = texts[:: max(1, len(texts) // (500 if arguments.quick else 3000))]
    rows = {}
    for name, tokenizer in families(texts):
        rows[name] = measure(tokenizer, texts, sample)
        print(name, rows[name], file=sys.stderr)
    gemma = rows["gemma-3"]
    print(
        json.dumps(
            {
                "ours_mb_s_core": gemma["counting_and_encoding_mb_s"],
                "hf_mb_s_core": gemma["hf_mb_s"]["encode_batch"],
                "ratio": gemma["ratio"]["encode_batch"][0],
                "ratio_counting": gemma["ratio_counting"]["encode_batch"][0],
                "equal": all(r["equal"] for r in rows.values()),
                "peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
                "tokenizers": rows,
            }
        )
    )


if __name__ == "__main__":
    main()
