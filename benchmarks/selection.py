"""Medical text out of a corpus of all sorts: how much of it is found, and how much else comes along?

    python benchmarks/selection.py            up to 4,000 texts of each source: minutes
    python benchmarks/selection.py --quick    300 texts of each: a minute or two

Data: ../shared/data. Each source is parted by a hash: one half is learnt from, the other judged. Examples come from
some of the positive sources; the corpus they are told apart from is all that is not medical, and for a twentieth of it
text of the positive sources that gave no examples, without a label. These, `unseen`, tell whether the topic is found or
only more of the same. Precision is that of the judged mixture as it is here, so it says less than the share of each
other source that came along. Beside it a lexicon: the share of words that begin like a medical word of our sample
dictionary and of ../shared/data/bilingual, with the threshold at which 0.95 of the examples pass, or 0.02 where that is
nought.
Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from vocabgraft.corpus.dictionary import SAMPLE, read_pairs
from vocabgraft.corpus.document import Tally
from vocabgraft.corpus.lines import read_lines
from vocabgraft.corpus.topic import Score, classifier_score, learn_topic
from vocabgraft.evaluation.statistics import wilson

DATA = Path(__file__).parent.parent.parent / "shared" / "data"
RECALL = 0.95
MEDICAL = frozenset({"medical", "anatomy", "disease", "drug", "procedure", "symptom", "test"})
Texts = dict[str, list[str]]


def rows(name: str) -> Iterator[dict[str, Any]]:
    for _, line in read_lines(DATA / name):
        if line:
            yield json.loads(line)


def asked(row: dict[str, Any]) -> str:
    options = row["options"]
    return "\n".join([row["question"], *(options.values() if isinstance(options, dict) else options)])


def first(texts: Iterable[str], most: int) -> list[str]:
    """At most so many different texts of 30 letters and more, picked by a hash."""
    known = {t for t in texts if len(t) >= 30}
    return sorted(known, key=lambda t: hashlib.sha256(t.encode()).digest())[:most]


def korean(most: int) -> tuple[Texts, Texts]:
    laws = list(rows("ko/laws.jsonl.zst"))
    reviews = (line.decode() for _, line in read_lines(DATA / "ko/nsmc_reviews.txt.zst") if line)
    yes = {
        "examination questions": first((asked(r) for r in rows("mcq/kormedmcqa_train_valid.jsonl.zst")), most),
        "health laws": first((r["text"] for r in laws if r["health"]), most),
    }
    no = {
        "other laws": first((r["text"] for r in laws if not r["health"]), most),
        "software documentation": first((r["text"] for r in rows("ko/msdocs.jsonl.zst")), most),
        "film reviews": first(reviews, most),
    }
    return yes, no


def english(most: int) -> tuple[Texts, Texts]:
    groups: Texts = {}
    for row in rows("en/medical.jsonl.zst"):
        groups.setdefault(row["source"].split()[0], []).append(row["text"])
    wiki = (line.decode() for name in ("test", "valid") for _, line in read_lines(DATA / f"en/wikitext2_{name}.txt")
            if line and len(line) > 200)  # fmt: skip
    names = sorted(groups, key=lambda n: -len(groups[n]))[:4]
    return {n: first(groups[n], most) for n in names}, {"Wikipedia paragraphs": first(wiki, most)}


def halves(texts: list[str]) -> tuple[list[str], list[str]]:
    """(to learn from, to judge)."""
    learnt = [hashlib.sha256(b"half\0" + t.encode()).digest()[0] % 2 == 0 for t in texts]
    return ([t for t, yes in zip(texts, learnt, strict=True) if yes],
            [t for t, yes in zip(texts, learnt, strict=True) if not yes])  # fmt: skip


def lexicon(language: int) -> Score:
    """Share of words that begin like a medical word of one word and two letters or more."""
    pairs = (p for file in (SAMPLE, DATA / "bilingual/en_ko.tsv") for p in read_pairs(file, Tally()))
    words = {(p.source, p.target)[language].casefold() for p in pairs if p.domain in MEDICAL}
    known = {word for word in words if len(word) > 1 and " " not in word}
    sizes = sorted({len(word) for word in known})

    def score(text: str) -> float:
        found = [any(word[:size] in known for size in sizes if size <= len(word)) for word in text.casefold().split()]
        return sum(found) / max(1, len(found))

    return score


def judged(score: Score, threshold: float, yes: Texts, no: Texts) -> dict[str, Any]:
    shares, passed, spent, size = {}, {}, 0.0, 0
    for name, texts in {**yes, **no}.items():
        size += sum(len(t.encode()) for t in texts)
        began = time.process_time()
        passed[name] = sum(score(t) >= threshold for t in texts)
        spent += time.process_time() - began
        found = wilson(passed[name], len(texts))
        shares[name] = [round(x, 3) for x in (found.accuracy, found.low, found.high)]
    right = sum(passed[n] for n in yes)
    precision = wilson(right, sum(passed.values()))
    return {"passed": shares, "precision": [round(x, 3) for x in (precision.accuracy, precision.low, precision.high)],
            "texts": {n: len(t) for n, t in {**yes, **no}.items()}, "threshold": round(threshold, 4),
            "mb_s_core": round(size / 1e6 / max(spent, 1e-9), 2)}  # fmt: skip


def measured(yes: Texts, no: Texts, sources: list[str], words: Score) -> dict[str, Any]:
    """Examples of some sources; all sources judged on the half that was not learnt from."""
    learn = {n: halves(t)[0] for n, t in {**yes, **no}.items()}
    judge = {n: halves(t)[1] for n, t in {**yes, **no}.items()}
    examples = [t for n in sources for t in learn[n]]
    other = [t for n in no for t in learn[n]]
    unseen = [t for n in yes if n not in sources for t in learn[n]][:: max(1, len(yes) - len(sources))]
    began = time.process_time()
    topic, figures = learn_topic(examples, other + unseen[: len(other) // 19], RECALL)
    print(f"  learnt in {time.process_time() - began:.0f} s: {figures}")
    passing = sorted(map(words, examples), reverse=True)[int(RECALL * len(examples))]
    ways = {"classifier": (classifier_score(topic.weights), topic.threshold), "lexicon": (words, passing or 0.02)}
    found: dict[str, Any] = {"unseen": [n for n in yes if n not in sources], "learnt": figures}
    for name, (score, threshold) in ways.items():
        found[name] = judged(score, threshold, {n: judge[n] for n in yes}, {n: judge[n] for n in no})
        print(f"  {name}: {json.dumps(found[name], ensure_ascii=False)}", flush=True)
    return found


def main() -> None:
    """Each positive source is left out of the examples in turn, then none."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="300 texts of each source")
    most = 300 if parser.parse_args().quick else 4000
    if not DATA.is_dir():
        raise SystemExit(f"{DATA} is not here; nothing can be measured")
    result: dict[str, Any] = {}
    for language, (name, sources) in enumerate({"en": english, "ko": korean}.items()):
        yes, no = sources(most)
        words = lexicon(language)
        for out in (*yes, None):
            told = f"{name}: all but {out}" if out else f"{name}: all"
            print(f"{told} gave examples")
            result[told] = measured(yes, no, [n for n in yes if n != out], words)
    print(json.dumps({"recall_asked": RECALL, "selection": result}, ensure_ascii=False))


if __name__ == "__main__":
    main()
