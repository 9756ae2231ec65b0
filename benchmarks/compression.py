"""What compression for vLLM and quantisation for llama.cpp cost a model, on the same items, with 95 % intervals.

    python benchmarks/compression.py                  Gemma 3 270M, 12 kB and 30 questions a language
    python benchmarks/compression.py --times 20       twenty times as much text, questions and calibration
    python benchmarks/compression.py --model FOLDER   another Gemma 3 folder, such as 61-quantize/model of a run
    python benchmarks/compression.py --quick          small slices: at most 3 minutes once the environment is there

Compressed by llm-compressor in its own environment (made on first use: minutes, more than 1 GB), calibrated on the
samples' tuning pairs in the chat format and on medical law and English medical text; measured on other documents of
both, and on KorMedMCQA (train, valid) and English medical questions. Weights are read back as stored, in float32.
Then `unpacked_alike`: whether our reading of the packed weights is compressed-tensors' own, bit for bit.
It needs ../shared/data; without it, it says so and stops. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bases import gemma, say

from vocabgraft.corpus.document import Tally
from vocabgraft.corpus.lines import read_lines
from vocabgraft.corpus.mix import windows
from vocabgraft.deployment.compress import compress
from vocabgraft.deployment.compression_gate import Material, Measured, losses, measure
from vocabgraft.deployment.compressor_environment import compressor_python
from vocabgraft.deployment.quantize import put_stored, quantize
from vocabgraft.evaluation.questions import answer_text, prompt, read_instructions, read_questions, split_questions
from vocabgraft.machine import cache_folder, keep_freed_memory
from vocabgraft.models.load import load_model
from vocabgraft.steps.tokenizer import bos_of
from vocabgraft.tokenizer.measure import load_tokenizer
from vocabgraft.training.chat import ChatFormat

DATA = Path("../shared/data")
TEXTS = {"korean": "ko/medical_law.jsonl.zst", "english": "en/medical.jsonl.zst"}
QUESTIONS = {"korean": "kormedmcqa_train_valid.jsonl.zst", "english": "english_medical.jsonl.zst"}
COMPRESSED, GGUF = ("rtn", "awq", "gptq", "w8a16"), ("q4_1", "q4_k_m", "q8_0")
WINDOW = 512  # bytes of text scored at a time: many windows of little text
# Run by the environment's Python: every packed weight as compressed-tensors itself gives it.
THEIRS = """
import sys, torch
from pathlib import Path
from safetensors.torch import load_file, save_file
from compressed_tensors.compressors.pack_quantized import PackedQuantizationCompressor as Packed
from compressed_tensors.quantization import QuantizationArgs, QuantizationScheme
import json
folder, out = map(Path, sys.argv[1:])
stored = {k: v for f in folder.glob("*.safetensors") for k, v in load_file(f).items()}
(group,) = json.loads((folder / "config.json").read_text())["quantization_config"]["config_groups"].values()
scheme = QuantizationScheme(targets=["Linear"], weights=QuantizationArgs(**group["weights"]))
found = {}
for name in stored:
    if name.endswith(".weight_packed"):
        stem = name.removesuffix("_packed")
        part = {k.replace(stem, "weight"): v for k, v in stored.items() if k.startswith(stem)}
        part["weight_shape"] = torch.Size(part["weight_shape"].tolist())
        found[stem] = Packed.decompress(part, scheme)["weight"].contiguous()
save_file(found, out)
"""


@dataclass(frozen=True)
class Size:
    """How much is read: bytes of text and questions a language, calibration texts and their tokens."""

    text_bytes: int
    questions: int
    samples: int
    window: int


def rank(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


def documents(side: str, *, held_out: bool) -> list[str]:
    """Documents in hash order, half for calibration and half for measuring."""
    found = (json.loads(line)["text"] for line in _first_lines(DATA / TEXTS[side], 3000))
    kept = [t for t in found if len(t) > 200 and (rank(t)[0] < 128) == held_out]
    return sorted(kept, key=rank)


def _first_lines(path: Path, most: int) -> Iterator[bytes]:
    for _, (_, line) in zip(range(most), read_lines(path), strict=False):
        if line is not None:
            yield line


def material(size: Size) -> Material:
    """Three windows of a document at most, and questions picked by hash."""
    texts, questions = {}, {}
    for side in TEXTS:
        parts = (w for t in documents(side, held_out=True) for w in windows([t], WINDOW, 3 * WINDOW))
        texts[side] = list(windows(parts, WINDOW, size.text_bytes))
        found = read_questions([str(DATA / "mcq" / QUESTIONS[side])], Tally())
        questions[side] = sorted(found, key=lambda q: rank(q.id + q.question))[: size.questions]
    return Material(texts, questions)


def calibration(folder: Path, size: Size) -> list[list[int]]:
    """Half tuning pairs in the chat format, a quarter text of each language."""
    tokenizer, chat, (bos, piece) = load_tokenizer(folder), ChatFormat(folder), bos_of(folder)
    tuned, _ = split_questions(read_questions(["samples:questions_ko"], Tally()), 0.5)
    pairs = [(prompt(q), answer_text(q)) for q in tuned]
    pairs += [(i.instruction, i.response) for i in read_instructions(["samples:instructions_ko"], Tally())]
    pairs.sort(key=lambda p: rank(p[0]))
    chosen = [list(chat.example(tokenizer, piece, *p).tokens[: size.window]) for p in pairs[: size.samples // 2]]
    for side in TEXTS:
        for text in documents(side, held_out=False)[: size.samples // 4]:
            chosen.append([bos, *tokenizer.encode(text[:6000], add_special_tokens=False).ids[: size.window - 1]])
    return chosen


def measured(folder: Path, what: Material, put: Any = None) -> Measured:
    live = load_model(folder, dtype="float32")
    if put is not None:
        put(live)
    return measure(live, load_tokenizer(folder), ChatFormat(folder), bos_of(folder), what)


def one_compressed(method: str, folder: Path, place: Path, texts: list[list[int]]) -> tuple[dict[str, Any], Any]:
    """Compress; what it took, and how to put it into a live model."""
    from vocabgraft.deployment.compressed_weights import put_compressed

    python, out = compressor_python(cache_folder(), say), place / method
    facts = compress(folder, out, method, python=python, calibration=texts, dtype="float32", say=say)
    return facts, lambda live: put_compressed(out, live)


def unpacked_alike(out: Path) -> bool:
    """Whether our reading of every packed weight is compressed-tensors' own, bit for bit."""
    from safetensors.torch import load_file

    from vocabgraft.deployment.compressed_weights import compressed_weights

    theirs = out.with_suffix(".theirs")
    python = compressor_python(cache_folder(), say)
    subprocess.run([python, "-I", "-c", THEIRS, out, theirs], check=True, stdout=sys.stderr)
    other = load_file(theirs)
    ours = {name: value for name, value in compressed_weights(out) if name in other}
    return len(ours) == len(other) and all(bool((ours[n].to(v.dtype) == v).all()) for n, v in other.items())


def one_gguf(method: str, folder: Path, place: Path) -> tuple[dict[str, Any], Any]:
    out, started = place / f"{method}.gguf", time.monotonic()
    quantize(folder, out, method)
    facts = {"bytes": out.stat().st_size, "seconds": round(time.monotonic() - started, 1)}
    return facts, lambda live: put_stored(out, live)


def table(folder: Path, size: Size, place: Path, methods: Sequence[str]) -> list[dict[str, Any]]:
    """One row a method, the full model first."""
    what, texts = material(size), calibration(folder, size)
    say(f"{len(texts)} calibration texts, {sum(map(len, texts)):,} tokens")
    full, rows = measured(folder, what), []
    for method in methods:
        makes_gguf = method in GGUF
        facts, put = one_gguf(method, folder, place) if makes_gguf else one_compressed(method, folder, place, texts)
        found = losses(full, measured(folder, what, put), what, max_rise=0.015, max_accuracy_loss=1.0)
        rows.append({"method": method, **facts})
        rows[-1]["losses"] = [
            {k: round(v, 5) if isinstance(v, float) else v for k, v in vars(x).items()} | {"passed": x.passed}
            for x in found
        ]
        say(f"{method}: {facts}; {'; '.join(x.sentence for x in found)}")
    for row in rows:
        if row["method"] in COMPRESSED:
            row["unpacked_alike"] = unpacked_alike(place / row["method"])
    told = {s: round(b.per_byte, 5) for s, b in full.bits.items()}
    right = {s: round(sum(r) / len(r), 4) for s, r in full.right.items()}
    return [{"method": "full", "bits_per_byte": told, "accuracy": right}, *rows]


def main() -> None:
    """Measure, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small slices")
    parser.add_argument("--times", type=int, default=1, metavar="N", help="N times as much of everything")
    parser.add_argument("--methods", nargs="+", default=(*COMPRESSED, *GGUF), choices=(*COMPRESSED, *GGUF))
    parser.add_argument("--model", metavar="FOLDER", help="a Gemma 3 folder; without it Gemma 3 270M")
    options = parser.parse_args()
    if not DATA.is_dir():
        print(json.dumps({"skipped": f"{DATA} is not here; this benchmark needs the development data"}))
        return
    os.environ |= {"HF_HUB_OFFLINE": "1"}
    keep_freed_memory()
    logging.disable(logging.WARNING)
    more = options.times
    size = Size(3_072, 3, 4, 96) if options.quick else Size(12_288 * more, 30 * more, 32 * more, 192)
    folder = Path(options.model) if options.model else gemma()
    with tempfile.TemporaryDirectory() as place:
        rows = table(folder, size, Path(place), options.methods)
    print(json.dumps({"model": folder.name, **vars(size), "rows": rows}))


if __name__ == "__main__":
    main()
