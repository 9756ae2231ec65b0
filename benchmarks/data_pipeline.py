"""The data steps on real text: how long, how much memory, and each beside datatrove's own step where there is one.

    python benchmarks/data_pipeline.py            310 MB of Korean through steps 02 and 04 and a word count, 2 processes
    python benchmarks/data_pipeline.py --quick    the first MB of each file (without ../shared/data: the samples)

Two parts. First the whole pipeline: read, clean, privacy, decontaminate, near-duplicates (steps 02 and 04 as a run does
them), then word counts; wall-clock seconds, and the most memory that all processes together held (their shares of
shared pages added up). Then each piece of work alone on the same sample of documents, one process and one core, in MB
of text per second of that core, and datatrove 0.10.1's own step on the same documents in the same run where it has one
and is installed (`pip install 'vocabgraft[scale]' orjson nltk xxhash`): its JSONL reader, its Gopher repetition and
quality filters, its PII formatter, its MinHash of four stages. Its words are cut at white space, its quickest way.
The two do not do the same work: what each finds is another matter (docs/results.md). Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import os
import resource
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from vocabgraft.corpus.clean import clean_text, reason_to_drop, split_long
from vocabgraft.corpus.document import Document, Tally, read_documents, read_file, read_source, write_documents
from vocabgraft.corpus.near_duplicates import near_duplicates
from vocabgraft.corpus.pseudonyms import Pseudonyms
from vocabgraft.evaluation.leaks import LeakIndex
from vocabgraft.evaluation.questions import read_questions
from vocabgraft.machine import detect
from vocabgraft.pipeline import execute
from vocabgraft.recipe import load_recipe
from vocabgraft.run import Run
from vocabgraft.steps.data import texts as training_texts
from vocabgraft.tokenizer.boundary import word_rule
from vocabgraft.tokenizer.count import count_words
from vocabgraft.tokenizer.measure import load_tokenizer

DATA = Path("../shared/data").resolve()
KOREAN = ("laws.jsonl.zst", "medical_law.jsonl.zst", "msdocs.jsonl.zst", "nsmc_reviews.txt.zst")
ASKED = DATA / "mcq" / "kormedmcqa_train_valid.jsonl.zst"
THRESHOLD = 0.8


def cpu() -> float:
    """Seconds that cores have worked for this process and those it has waited for."""
    return sum(sum(resource.getrusage(who)[:2]) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))


class Memory:
    """The most memory that this process and all below it held together, GB, looked at four times a second."""

    def __enter__(self) -> Memory:
        self.peak, self._over = 0.0, threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.25):
            self.peak = max(self.peak, sum(map(held, family(os.getpid()))) / 2**30)


def family(pid: int) -> Iterator[int]:
    yield pid
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            below = task.read_text().split()
        except OSError:
            continue
        for child in below:
            yield from family(int(child))


def held(pid: int) -> int:
    """Bytes of a process: its own pages, and its share of those it shares."""
    try:
        rows = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0
    return sum(int(row.split()[1]) * 1024 for row in rows if row.startswith("Pss:"))


def sources(folder: Path, most: int) -> list[Path]:
    """The Korean files whole (most = 0), or the first bytes of each; the samples where the data is not here."""
    if not DATA.is_dir():
        return []
    if not most:
        return [DATA / "ko" / name for name in KOREAN]
    found = []
    for name in KOREAN:
        found.append(folder / f"{name.partition('.')[0]}.jsonl")
        write_documents(found[-1], first(DATA / "ko" / name, most))
    return found


def first(path: Path, most: int) -> Iterator[Document]:
    total = 0
    for document in read_file(path, Document("", "", "ko", path.name, ""), Tally()):
        total += len(document.text.encode())
        if total > most:
            return
        yield document


def whole(folder: Path, files: list[Path], workers: int) -> dict[str, Any]:
    """Steps 02 and 04 of a run, and the word count."""
    names = [str(f) for f in files] or ["samples:korean"]
    sets = [f"data.target={names}", "data.max_bytes=2000000000", f"scale.workers={workers}"]
    sets += [f"evaluate.target_questions=['{ASKED}']"] if ASKED.exists() else []
    words = [w for s in sets for w in ("--set", s)]
    start = [sys.executable, "-m", "vocabgraft", "run", "tiny-cpu", "--folder", str(folder / "run"), *words]
    subprocess.run([*start, "--until", "01"], check=True, capture_output=True)
    run = Run.create(folder / "run", load_recipe("tiny-cpu", sets), "")
    with Memory() as memory:
        started, spent = time.monotonic(), cpu()
        execute(run, detect(folder), until="04")
        prepared = time.monotonic()
        rule = word_rule(load_tokenizer(Path(json.loads(run.path("01-sources", "base.json").read_text())["folder"])))
        counts = count_words(training_texts(_Context(run), "target", "train"), rule, threads=workers)
        ended, spent = time.monotonic(), cpu() - spent
    seconds = {key: run.manifest(key).seconds for key in ("02-collect", "04-preprocess")}
    read = json.loads(run.path("02-collect", "target.shards.json").read_text())
    text = sum(len(d.text.encode()) for d in read_documents(run.path("02-collect", "target.jsonl")))
    print(json.dumps(run.manifest("04-preprocess").metrics["target"], ensure_ascii=False)[:2000])
    shards = sum(p.stat().st_size for p in (folder / "run" / "shards").rglob("*") if p.is_file())
    return {
        "mb": round(text / 1e6, 1),
        "seconds": round(ended - started, 1),
        "cpu_seconds": round(spent, 1),
        "peak_gb": round(memory.peak, 2),
        "workers": workers,
        "cores": len(os.sched_getaffinity(0)),
        "step_seconds": {**seconds, "counts": round(ended - prepared, 1)},
        "shards": len(read),
        "shards_disk_mb": round(shards / 1e6, 1),
        "words": counts.total,
    }


class _Context:
    """What `texts` asks of a step's context."""

    def __init__(self, run: Run) -> None:
        self.run = run


def sample(folder: Path, files: list[Path], most: int) -> list[Document]:
    if files:
        found = [d for f in files if "medical" not in f.name for d in first(f, most)]
    else:
        found = list(read_source("samples:korean", language="ko", license="", tally=Tally()))
    write_documents(folder / "sample" / "sample.jsonl", found)
    return found


def timed(work: Callable[[], object], size: float) -> float:
    """MB a second of this core."""
    started = time.process_time()
    work()
    return round(size / (time.process_time() - started), 2)


def ours(folder: Path, documents: list[Document], tokenizer: Path) -> dict[str, float]:
    texts = [d.text for d in documents]
    size = sum(len(t.encode()) for t in texts) / 1e6
    guard, rule = Pseudonyms(), word_rule(load_tokenizer(tokenizer))
    index = LeakIndex(read_questions([str(ASKED) if ASKED.exists() else "samples:questions_ko"], Tally()))
    plain = Document("", "", "ko", "", "")
    limits = {"script": "Hangul", "min_script_share": 0.3, "min_chars": 40, "max_chars": 20_000}
    cut = [p for t in texts for p in split_long(clean_text(t), 20_000)]
    work: dict[str, Callable[[], object]] = {
        "read": lambda: list(read_file(folder / "sample" / "sample.jsonl", plain, Tally())),
        "clean": lambda: [reason_to_drop(p, **limits) for t in texts for p in split_long(clean_text(t), 20_000)],
        "near-duplicates": lambda: near_duplicates(cut, THRESHOLD),
        "privacy": lambda: [guard.replace(t) for t in texts],
        "decontaminate": lambda: list(index.find_each(cut)),
        "counts": lambda: count_words(texts, rule),
    }
    return {name: timed(call, size) for name, call in work.items()}


def theirs(folder: Path, documents: list[Document]) -> dict[str, float | None]:
    """datatrove's own steps on the same documents."""
    if any(importlib.util.find_spec(name) is None for name in ("datatrove", "orjson", "nltk", "xxhash")):
        return {}
    from datatrove.data import Document as Theirs
    from datatrove.pipeline.dedup import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.pipeline.filters import GopherQualityFilter, GopherRepetitionFilter
    from datatrove.pipeline.formatters import PIIFormatter
    from datatrove.pipeline.readers import JsonlReader
    from datatrove.utils.hashing import HashConfig
    from datatrove.utils.logging import logger
    from datatrove.utils.word_tokenizers import WordTokenizer

    class Words(WordTokenizer):
        """White space, quicker than any tokenizer it ships."""

        def word_tokenize(self, text: str) -> list[str]:
            return text.split()

        def sent_tokenize(self, text: str) -> list[str]:
            return [text]

        def span_tokenize(self, text: str) -> list[tuple[int, int]]:
            return [(0, len(text))]

    logger.remove()
    size = sum(len(d.text.encode()) for d in documents) / 1e6
    words, config = Words(), MinhashConfig(hash_config=HashConfig(precision=64, hash_fc="xxhash"))
    made = [Theirs(text=d.text, id=d.id) for d in documents]
    place = folder / "minhash"

    def gopher() -> object:
        return list(GopherQualityFilter(language=words).run(GopherRepetitionFilter(language=words).run(iter(made))))

    def minhash() -> object:
        MinhashDedupSignature(str(place / "s"), config, language=words).run(iter(made), 0, 1)
        for bucket in range(config.num_buckets):
            MinhashDedupBuckets(str(place / "s"), str(place / "b"), config=config).run(None, bucket, config.num_buckets)
        MinhashDedupCluster(str(place / "b"), str(place / "c"), config).run(None, 0, 1)
        return list(MinhashDedupFilter(str(place / "c")).run(iter(made), 0, 1))

    work: dict[str, Callable[[], object]] = {
        "read": lambda: list(JsonlReader(str(folder / "sample")).run(None, 0, 1)),
        "clean": gopher,
        "privacy": lambda: list(PIIFormatter().run(itertools.chain(made))),
        "near-duplicates": minhash,
    }
    found: dict[str, float | None] = {}
    for name, call in work.items():
        try:
            found[name] = timed(call, size)
        except Exception as e:  # a peer that cannot run here is told, not measured
            print(f"datatrove, {name}: {type(e).__name__}: {e}")
            found[name] = None
    return found


def main() -> None:
    """Measure, print, and sum up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="the first MB of each file, or the samples")
    parser.add_argument("--workers", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        files = sources(folder, 1_000_000 if asked.quick else 0)
        told = whole(folder, files, asked.workers)
        print(json.dumps(told), flush=True)
        documents = sample(folder, files, 1_000_000 if asked.quick else 5_000_000)
        base = Path(json.loads((folder / "run" / "01-sources" / "base.json").read_text())["folder"])
        mine, peer = ours(folder, documents, base), theirs(folder, documents)
        steps = [{"step": s, "mb_s_core": mine[s], "datatrove_mb_s_core": peer.get(s)} for s in mine]
        print(
            json.dumps(
                {**told, "sample_mb": round(sum(len(d.text.encode()) for d in documents) / 1e6, 1), "steps": steps}
            )
        )


if __name__ == "__main__":
    main()
