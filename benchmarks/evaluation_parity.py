"""Multiple choice: the same items through lm-evaluation-harness 0.4.13 and through ours.

    python benchmarks/evaluation_parity.py                 500 Korean and 500 English items, base and adapted, float32
    python benchmarks/evaluation_parity.py --adapted RUN   the adapted model of a finished run, not of a new smoke run
    python benchmarks/evaluation_parity.py --quick         6 items of each, the base alone: at most 3 minutes

lm-eval reads our items from task files of its own kind, one at a time (its default), with its reuse of one-token
continuations. `agree`: share of items with the same answer by log-likelihood of the letter. `written`: Korean items
through lm-eval's own `kormedmcqa` 3.0 and our form of it, 24 tokens a reply: replies alike to the letter. Seconds are
of the processor, all threads together. A full run keeps every hundred items in runs/parity as they end, and goes on
where it was. It needs lm-eval (pip install 'vocabgraft[eval]') and ../shared/data; without one of them it says so and
stops. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from bases import gemma

from vocabgraft.corpus.document import Tally
from vocabgraft.durable import sha256_file, write_json
from vocabgraft.evaluation.likelihood import encode_endings, log_likelihoods
from vocabgraft.evaluation.lm_eval import CHOICE, prompt, write_task
from vocabgraft.evaluation.questions import LETTERS, Question, read_questions

DATA = Path("../shared/data/mcq")
REPLY = 24  # tokens
PART = 100  # items that are kept together
FILES = {"korean": "kormedmcqa_train_valid.jsonl.zst", "english": "english_medical.jsonl.zst"}


def chosen_items(file: str, count: int) -> list[Question]:
    """So many items, picked by a hash of their text."""
    questions = read_questions([str(DATA / file)], Tally())
    return sorted(questions, key=lambda q: hashlib.sha256((q.id + q.question).encode()).digest())[:count]


def ours(model: Any, tokenizer: Any, bos: int, questions: list[Question]) -> list[list[float]]:
    """Log-probabilities of the letters, item by item."""
    texts = [
        encode_endings(tokenizer, prompt(q), [CHOICE.format(x) for x in LETTERS[: len(q.options)]], bos=bos)
        for q in questions
    ]
    return log_likelihoods(model, texts)


def theirs(model: Any, folder: Path, questions: list[Question]) -> tuple[list[list[float]], float]:
    """The same from lm-eval, and the accuracy it reports."""
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoTokenizer

    with tempfile.TemporaryDirectory() as place:
        write_task(Path(place), "items", questions)
        lm = HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(folder), batch_size=1)
        manager = TaskManager(include_path=place, include_defaults=False)
        found = simple_evaluate(
            model=lm, tasks=["items"], task_manager=manager, log_samples=True, bootstrap_iters=0, verbosity="ERROR"
        )
    samples = sorted(found["samples"]["items"], key=lambda s: s["doc_id"])
    scores = [[float(reply[0]) for reply in s["filtered_resps"]] for s in samples]
    return scores, float(found["results"]["items"]["acc,none"])


def best(scores: list[float]) -> int:
    return max(range(len(scores)), key=scores.__getitem__)


def compared(name: str, folder: Path, set_name: str, questions: list[Question]) -> dict[str, Any]:
    """Both on one set, one after the other in this process."""
    from vocabgraft.models.load import load_model
    from vocabgraft.steps.tokenizer import bos_of
    from vocabgraft.tokenizer.measure import load_tokenizer

    model, tokenizer, (bos, _) = load_model(folder, dtype="float32"), load_tokenizer(folder), bos_of(folder)
    log_likelihoods(model, [encode_endings(tokenizer, "warm up", [" A"], bos=bos)])
    start = time.process_time()
    found = ours(model, tokenizer, bos, questions)
    middle = time.process_time()
    other, accuracy = theirs(model, folder, questions)
    end = time.process_time()
    gaps = (abs(a - b) for x, y in zip(found, other, strict=True) for a, b in zip(x, y, strict=True))
    return {
        "model": name,
        "set": set_name,
        "items": len(questions),
        "agree": sum(best(a) == best(b) for a, b in zip(found, other, strict=True)) / len(questions),
        "accuracy": sum(best(s) == q.answer for s, q in zip(found, questions, strict=True)) / len(questions),
        "lm_eval_accuracy": accuracy,
        "largest_gap_nats": round(max(gaps), 6),
        "ours_seconds": round(middle - start, 1),
        "lm_eval_seconds": round(end - middle, 1),
    }


def kept(place: Path | None, name: str, folder: Path, set_name: str, questions: list[Question]) -> dict[str, Any]:
    """The same, from an earlier run of the same weights and items where there is one."""
    weights = [sha256_file(path) for path in sorted(folder.glob("*.safetensors"))]
    asked = [[q.id, q.question] for q in questions]
    key = hashlib.sha256(json.dumps([name, set_name, weights, asked]).encode()).hexdigest()[:16]
    file = place / f"{name}-{set_name}-{key}.json" if place else None
    if file and file.exists():
        row: dict[str, Any] = json.loads(file.read_text("utf-8"))
    else:
        row = compared(name, folder, set_name, questions)
        if file:
            file.parent.mkdir(parents=True, exist_ok=True)
            write_json(file, row)
    print(row, file=sys.stderr, flush=True)
    return row


def in_parts(place: Path | None, name: str, folder: Path, set_name: str, questions: list[Question]) -> dict[str, Any]:
    """A set, a hundred items at a time."""
    parts = [questions[n : n + PART] for n in range(0, len(questions), PART)]
    rows = [kept(place, name, folder, set_name, part) for part in parts]
    found = {key: sum(row[key] for row in rows) for key in ("items", "ours_seconds", "lm_eval_seconds")}
    means = {
        key: round(sum(row[key] * row["items"] for row in rows) / found["items"], 6)
        for key in ("agree", "accuracy", "lm_eval_accuracy")
    }
    return {"model": name, "set": set_name, **found, **means,
            "largest_gap_nats": max(row["largest_gap_nats"] for row in rows)}  # fmt: skip


def their_replies(model: Any, folder: Path, questions: list[Question]) -> tuple[list[str], list[bool]]:
    """What lm-eval's own task makes of the items: each reply, cut, and whether it was right."""
    import lm_eval
    from lm_eval.models.huggingface import HFLM
    from lm_eval.tasks import TaskManager
    from transformers import AutoTokenizer

    template = Path(lm_eval.__file__).parent / "tasks/kormedmcqa/_template_yaml"
    with tempfile.TemporaryDirectory() as place:
        items = Path(place) / "items.jsonl"
        rows = [{"question": q.question, "answer": q.answer + 1, **dict(zip(LETTERS, q.options, strict=False))}
                for q in questions]  # fmt: skip
        items.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
        task = {"include": str(template), "task": "written", "dataset_path": "json", "fewshot_split": None,
                "dataset_kwargs": {"data_files": {"test": str(items)}}}  # fmt: skip
        (Path(place) / "written.yaml").write_text(json.dumps(task), "utf-8")
        found = lm_eval.simple_evaluate(
            model=HFLM(pretrained=model, tokenizer=AutoTokenizer.from_pretrained(folder), batch_size=1),
            tasks=["written"], gen_kwargs={"max_gen_toks": REPLY}, log_samples=True, bootstrap_iters=0,
            task_manager=TaskManager(include_path=place, include_defaults=False), verbosity="ERROR",
        )  # fmt: skip
    samples = sorted(found["samples"]["written"], key=lambda s: s["doc_id"])
    return [s["resps"][0][0] for s in samples], [s["exact_match"] == 1 for s in samples]


def written(folder: Path, questions: list[Question]) -> dict[str, Any]:
    """Replies of both, item by item."""
    from vocabgraft.evaluation.written import lm_eval_form, write_answers
    from vocabgraft.models.load import load_model
    from vocabgraft.steps.tokenizer import bos_of
    from vocabgraft.tokenizer.measure import load_tokenizer

    model, tokenizer = load_model(folder, dtype="float32"), load_tokenizer(folder)
    form = lm_eval_form(tokenizer, bos_of(folder)[0], "kormedmcqa-3.0")
    start = time.process_time()
    replies = write_answers(model, tokenizer, form, questions, script="Hangul", most=REPLY)
    middle = time.process_time()
    texts, right = their_replies(model, folder, questions)
    end = time.process_time()
    return {
        "items": len(questions),
        "alike": sum(r.text == t for r, t in zip(replies, texts, strict=True)) / len(questions),
        "right": sum(r.right for r in replies),
        "lm_eval_right": int(sum(right)),
        "same_items_right": [r.right for r in replies] == right,
        "ours_seconds": round(middle - start, 1),
        "lm_eval_seconds": round(end - middle, 1),
    }


def adapted(run: str | None, scratch: Path) -> Path:
    """The model folder of a finished run; without one, of a smoke run."""
    from vocabgraft.run import Run

    folder = Path(run) if run else scratch / "run"
    if not run:
        command = [sys.executable, "-m", "vocabgraft", "run", "korean-gemma-270m", "--budget", "smoke"]
        subprocess.run([*command, "--folder", str(folder), "--until", "41-instruct"], check=True, stdout=sys.stderr)
    return Run.open(folder).path("41-instruct") / "model"


def main() -> None:
    """Compare, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="6 items of each, the base alone")
    parser.add_argument("--items", type=int, help="items of each language")
    parser.add_argument("--adapted", metavar="RUN", help="folder of a finished run")
    options = parser.parse_args()
    if not DATA.is_dir():
        print(json.dumps({"skipped": f"{DATA} is not here; this benchmark needs the development data"}))
        return
    if importlib.util.find_spec("lm_eval") is None:
        print(json.dumps({"skipped": "lm-eval is not installed: pip install 'vocabgraft[eval]'"}))
        return
    os.environ |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1"}
    logging.disable(logging.WARNING)
    items = {name: chosen_items(file, options.items or (6 if options.quick else 500)) for name, file in FILES.items()}
    with tempfile.TemporaryDirectory() as scratch:
        models = {"base": gemma()}
        if not options.quick:
            models["adapted"] = adapted(options.adapted, Path(scratch))
        place = None if options.quick else Path("runs/parity")
        rows = [in_parts(place, name, folder, *each) for name, folder in models.items() for each in items.items()]
        said = written(models["base"], chosen_items(FILES["korean"], 2 if options.quick else 20))
    count = sum(row["items"] for row in rows)
    print(
        json.dumps(
            {
                "items": count,
                "agree": sum(row["agree"] * row["items"] for row in rows) / count,
                "ours_seconds": round(sum(row["ours_seconds"] for row in rows), 1),
                "lm_eval_seconds": round(sum(row["lm_eval_seconds"] for row in rows), 1),
                "rows": rows,
                "written": said,
            }
        )
    )


if __name__ == "__main__":
    main()
