"""The leak gate: are benchmark questions found in training text, and is other text left alone?

    python benchmarks/leak_gate.py            2,000 items planted three ways; all law and English: 3 minutes
    python benchmarks/leak_gate.py --quick    300 items, 60 laws, 2,000 English texts: seconds

Items of ../shared/data/mcq are planted into Korean medical law, which quotes some of the same statutes as they do.

verbatim    question and options as a test prints them
perturbed   options in another order under other signs; every second Korean particle another one, every second English
            article gone; a third of them with Hangul decomposed, a third without spaces
answered    the question and the right option alone, as tuning data has it

`false_alarms` is the share of laws that are said to hold an item though none was planted. In the English texts some
items stand indeed: abstracts from which PubMedQA took its questions, with the PMID in both names. They are counted as
`true_leaks`, all else as false. Without the data it says so and stops. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import random
import re
import time
import unicodedata
from collections.abc import Callable
from itertools import islice
from pathlib import Path

from vocabgraft.corpus.document import Document, Tally, read_source
from vocabgraft.evaluation.leaks import LeakIndex
from vocabgraft.evaluation.questions import Question, read_questions
from vocabgraft.evaluation.statistics import wilson

DATA = Path("../shared/data")
FILES = ("mcq/kormedmcqa_train_valid.jsonl.zst", "mcq/english_medical.jsonl.zst")
OTHER = {"은": "이", "는": "가", "이": "은", "가": "는", "을": "은", "를": "는", "에서": "에", "와": "랑", "과": "하고"}
PARTICLE = re.compile(rf"(?<=[가-힣])({'|'.join(sorted(OTHER, key=len, reverse=True))})(?![가-힣])")
ARTICLE = re.compile(r"\b(the|a|an) ", re.IGNORECASE)


def verbatim(question: Question, draw: random.Random) -> str:
    options = "\n".join(f"{sign} {text}" for sign, text in zip("①②③④⑤⑥⑦⑧⑨⑩", question.options, strict=False))
    return f"{question.question}\n{options}"


def answered(question: Question, draw: random.Random) -> str:
    return f"{question.question}\n정답: {question.options[question.answer]}"


def perturbed(question: Question, draw: random.Random) -> str:
    def changed(text: str) -> str:
        text = PARTICLE.sub(lambda m: OTHER[m[1]] if draw.random() < 0.5 else m[1], text)
        return ARTICLE.sub(lambda m: "" if draw.random() < 0.5 else m[0], text)

    options = draw.sample([changed(o) for o in question.options], len(question.options))
    signs = draw.choice(["①②③④⑤⑥⑦⑧⑨⑩", "ABCDEFGHIJ", "1234567890"])
    text = "\n".join([changed(question.question), *(f"{s}. {o}" for s, o in zip(signs, options, strict=False))])
    kind = draw.randrange(3)
    return unicodedata.normalize("NFD", text) if kind == 0 else text.replace(" ", "") if kind == 1 else text


def found(index: LeakIndex, planted: list[int], laws: list[str], write: Callable[..., str]) -> float:
    """Share of items that are found where they were put."""
    draw, right = random.Random(0), 0
    for n in planted:
        law = laws[n % len(laws)][:3000]
        text = f"{law[:1500]}\n{write(index.items[n], draw)}\n{law[1500:]}"
        right += n in {leak.item for leak in index.find(text)}
    return right / len(planted)


def documents(file: str, language: str, limit: int | None) -> list[Document]:
    return list(islice(read_source(str(DATA / file), language=language, license="", tally=Tally()), limit))


def alarmed(index: LeakIndex, texts: list[Document]) -> tuple[int, int, float]:
    """Texts that hold no item and are said to, those that hold the one of their PMID, MB per CPU-second."""
    started = time.process_time()
    held = [{index.items[leak.item].id for leak in leaks} for leaks in index.find_each(d.text for d in texts)]
    seconds = time.process_time() - started
    true = [d.id.replace("pmid-", "pubmedqa-") in each for d, each in zip(texts, held, strict=True)]
    size = sum(len(d.text.encode()) for d in texts) / 1e6
    return sum(map(bool, held)) - sum(true), sum(true), round(size / seconds, 2)


def main() -> None:
    """Plant, look, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="300 items, 60 laws")
    quick = parser.parse_args().quick
    if not DATA.is_dir():
        print(json.dumps({"skipped": f"{DATA} is not here; this benchmark needs the development data"}))
        return
    items = read_questions([str(DATA / file) for file in FILES], Tally())
    started = time.process_time()
    index = LeakIndex(items)
    built = time.process_time() - started
    laws = documents("ko/medical_law.jsonl.zst", "ko", 60 if quick else None)
    english = documents("en/medical.jsonl.zst", "en", 2000 if quick else None)
    alarms, _, speed = alarmed(index, laws)
    english_alarms, true_leaks, english_speed = alarmed(index, english)
    planted = random.Random(0).sample(range(len(items)), 300 if quick else 2000)
    texts = [law.text for law in laws]
    shares = {write.__name__: found(index, planted, texts, write) for write in (verbatim, perturbed, answered)}
    rate = wilson(alarms, len(laws))
    print(
        json.dumps(
            {
                **shares,
                "false_alarms": rate.accuracy,
                "false_alarms_at_most": round(rate.high, 5),
                "laws": len(laws),
                "mb_s_core": speed,
                "english": {
                    "texts": len(english),
                    "false_alarms": english_alarms / (len(english) - true_leaks),
                    "true_leaks": true_leaks,
                    "mb_s_core": english_speed,
                },
                "items": len(items),
                "not_to_be_looked_for": len(index.unknown),
                "planted": len(planted),
                "index_seconds": round(built, 2),
            }
        )
    )


if __name__ == "__main__":
    main()
