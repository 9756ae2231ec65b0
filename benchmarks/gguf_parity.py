"""Whether a GGUF file is the model it was made from: token ids, log-probabilities, and what quantising costs.

    python benchmarks/gguf_parity.py             Gemma 3's and SmolLM2's own vocabularies, and Gemma 3 270M end to end
    python benchmarks/gguf_parity.py --quick     a tiny vocabulary of Gemma's kind, and SmolLM2's; at most 3 minutes

Ids: a vocabulary is expanded by five languages (Khmer, Bulgarian, Thai, Arabic, Korean) in every place (slots;
appended, tied; appended, untied), written by `export_gguf` around random weights, and 10,000 lines of the language go
through transformers' AutoTokenizer and llama.cpp, and through vLLM's where $VOCABGRAFT_VLLM or PATH has it. End to end:
Gemma 3 270M with Korean pieces (rows: subword mean, untrained) on 50 prompts: transformers, the numbers of the f16 file
put back into transformers, and llama.cpp serving that file. Loss: bits per byte of the stored numbers against the
model's own, the same windows, 95 % paired bootstrap intervals. The base comes from a Q4_K_M file itself, so its body
lies on that grid already: expect more for a body that was trained. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from bases import gemma, smollm2
from languages import SCRIPTS, lines
from safetensors.torch import load_file, save_file
from transformers import AutoTokenizer, Gemma3TextConfig, LlamaConfig

from vocabgraft.audit import prose
from vocabgraft.corpus.mix import windows
from vocabgraft.corpus.script import script_pattern
from vocabgraft.deployment.agreement import Reference, next_token_agreement
from vocabgraft.deployment.gguf_export import export_gguf
from vocabgraft.deployment.merge import export_folder
from vocabgraft.deployment.quantize import put_stored, quantize
from vocabgraft.deployment.serve import LlamaServer, new_key
from vocabgraft.deployment.vllm_server import environment, find_executable
from vocabgraft.embedding.initialise import NewPieces, build_rows
from vocabgraft.errors import MachineError
from vocabgraft.evaluation.bits import Bits, bits_per_byte
from vocabgraft.evaluation.statistics import paired_change
from vocabgraft.models.load import load_model, quiet
from vocabgraft.models.random_gemma3 import write_random_gemma3
from vocabgraft.tokenizer.boundary import word_rule
from vocabgraft.tokenizer.count import count_words
from vocabgraft.tokenizer.expand import Expansion, expand_tokenizer
from vocabgraft.tokenizer.measure import load_tokenizer
from vocabgraft.tokenizer.select import Limits, select_pieces
from vocabgraft.tokenizer.train import train_pieces
from vocabgraft.training.graft import NEW

LINES, LEARNT_FROM, PIECES, SEED = 10_000, 3_000, 400, 20261123
PLACES = {"slots": ("slots", True), "append, tied": ("append", True), "append, untied": ("append", False)}
WINDOW, WINDOWS = 256, 32  # bytes of a window of text, windows a side


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def expand(base: Path, texts: list[str], script: str, place: str, out: Path) -> Expansion:
    """The base's tokenizer with pieces learnt from texts."""
    letters, tokenizer = script_pattern(script), load_tokenizer(base)
    counts = count_words(texts, word_rule(tokenizer)).having(letters.pattern)
    candidates = train_pieces(tokenizer, counts, script=letters, size=2 * PIECES, min_count=2)
    chosen = select_pieces(base, candidates, counts, Limits(PIECES), place=place)
    return expand_tokenizer(base, chosen.pieces, chosen.uses, out, place=place)


def put_model(folder: Path, rows: int, tied: bool) -> None:
    """Random weights around a tokenizer: one narrow layer, of Gemma's shape or of Llama's."""
    from transformers import AutoModelForCausalLM

    sizes: dict[str, Any] = {
        "vocab_size": rows,
        "hidden_size": 32,
        "intermediate_size": 32,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "num_key_value_heads": 1,
        "head_dim": 32,
        "max_position_embeddings": 512,
        "tie_word_embeddings": tied,
    }
    gemma = (folder / "tokenizer.model").is_file()
    config = Gemma3TextConfig(**sizes, query_pre_attn_scalar=32) if gemma else LlamaConfig(**sizes)
    torch.manual_seed(SEED)
    with quiet():
        AutoModelForCausalLM.from_config(config).to(torch.bfloat16).save_pretrained(folder)


def parity(base: Path, language: str, place: str, scratch: Path) -> dict[str, Any]:
    """Ids of transformers and llama.cpp on the language's lines, through a GGUF file of the whole export."""
    at, tied = PLACES[place]
    began = time.process_time()
    folder = scratch / f"{base.name}-{language}-{at}"
    if folder.exists():
        added = Expansion.load(folder / "expansion.json")
    else:
        added = expand(base, lines(language, LEARNT_FROM, SEED + 1), SCRIPTS[language], at, folder)
        added.save(folder / "expansion.json")
    rows = added.rows or load_tokenizer(base).get_vocab_size()
    put_model(folder, rows, tied)
    export = export_gguf(folder, scratch / "m.gguf", quantization="f16")
    texts = lines(language, LINES, SEED)
    ours = ids_of_transformers(folder, tuple(texts))
    with LlamaServer(scratch / "m.gguf", key=new_key(), context=256, threads=1, warmup=False) as server:
        theirs = server.tokenize_all(texts)
    served = ids_of_vllm(folder, tuple(texts))
    new = set(added.ids)
    differing = [t for t, a, b in zip(texts, ours, theirs, strict=True) if a != b]
    return {
        "lines": len(texts),
        "equal": len(texts) - len(differing),
        "equal_in_vllm": None if served is None else sum(a == b for a, b in zip(ours, served, strict=True)),
        "with_new_pieces": sum(not new.isdisjoint(ids) for ids in ours),
        "new_pieces": len(new),
        "pre": export["pre"],
        "differing": differing[:3],
        "cpu_seconds": round(time.process_time() - began, 1),
    }


@lru_cache(maxsize=1)
def ids_of_transformers(folder: Path, texts: tuple[str, ...]) -> list[list[int]]:
    """Ids of each text, without BOS; a tokenizer that is appended for a tied and an untied model is read once."""
    with quiet():
        found: list[list[int]] = AutoTokenizer.from_pretrained(folder)(list(texts), add_special_tokens=False)[
            "input_ids"
        ]
    return found


READS_AS_VLLM = """
import json, sys
from vllm.tokenizers import get_tokenizer
read = get_tokenizer(sys.argv[1])
print(json.dumps([read.encode(t, add_special_tokens=False) for t in json.load(sys.stdin)]))
"""


@lru_cache(maxsize=1)
def ids_of_vllm(folder: Path, texts: tuple[str, ...]) -> list[list[int]] | None:
    """Ids of each text from the tokenizer that vLLM makes of the folder; None where vLLM is not."""
    try:
        python = Path(find_executable()).with_name("python")
    except MachineError:
        return None
    command = [str(python), "-c", READS_AS_VLLM, str(folder)]
    done = subprocess.run(
        command, input=json.dumps(texts), stdout=subprocess.PIPE, text=True, check=True, env=environment("-")
    )
    found: list[list[int]] = json.loads(done.stdout.splitlines()[-1])
    return found


def all_parity(bases: dict[str, tuple[Path, tuple[str, ...]]], scratch: Path) -> dict[str, dict[str, Any]]:
    """'vocabulary, place' -> language -> what was found; a base comes with the places that are tried."""
    found: dict[str, dict[str, Any]] = {}
    for name, (base, places) in bases.items():
        for language in SCRIPTS:
            for place in places:
                row = parity(base, language, place, scratch)
                found.setdefault(f"{name}, {place}", {})[language] = row
                say(f"{name}, {place}, {language}: {json.dumps(row, ensure_ascii=False)}")
    return found


def grafted(base: Path, place: str, scratch: Path) -> Path:
    """The base with Korean pieces whose rows are subword means; untied, the two routes are rows of their own."""
    at, tied = PLACES[place]
    texts = [*prose("korean"), *lines("ko", LINES, SEED)]
    added = expand(base, texts, "Hangul", at, scratch / "tokenizer")
    matrix = load_file(base / "model.safetensors")["model.embed_tokens.weight"]
    rows, _ = build_rows(matrix, NewPieces(added.ids, added.pieces, added.parts))
    learnt = {"input.new": rows} if tied else {"input.new": rows, "output.new": rows * 0.98}
    (scratch / "state").mkdir()
    save_file(learnt, scratch / "state" / NEW)
    out = scratch / "model"
    export_folder(base, scratch / "tokenizer", scratch / "state", torch.tensor(added.ids), out, size=added.rows)
    return out


def prompts(words: int = 8) -> list[str]:
    """50 beginnings of texts, half of them Korean."""
    return [" ".join(t.split()[:words]) for name in ("korean", "english") for t in prose(name)[:25]]


def end_to_end(base: Path, place: str, scratch: Path) -> dict[str, Any]:
    """Next tokens of transformers, of the stored f16 numbers, and of the served file, on the same prompts."""
    model, file = grafted(base, place, scratch), scratch / "f16.gguf"
    export = export_gguf(model, file, quantization="f16")
    reference = Reference.load(model)
    with LlamaServer(file, key=new_key(), context=512, threads=1) as server:
        served = next_token_agreement(reference, server, prompts())
    stored = Reference.load(model)
    put_stored(file, stored.model)
    numbers = next_token_agreement(reference, stored, prompts())
    say(f"{place}: served within {served['largest']:.4f} nats, stored numbers within {numbers['largest']:.4f}")
    return {"export": export, "served": served, "stored": numbers}


def losses(model: Path, scratch: Path) -> dict[str, Any]:
    """Bits per byte of each quantised file's numbers against the model's own, per language, with intervals."""
    texts = {side: list(windows(prose(side), WINDOW, WINDOW * WINDOWS)) for side in ("korean", "english")}
    live, tokenizer = load_model(model, dtype="float32"), load_tokenizer(model)

    def measured() -> dict[str, Bits]:
        return {side: bits_per_byte(live, tokenizer, some, bos=2) for side, some in texts.items()}

    before, found = measured(), {}
    for method in ("q8_0", "q4_k_m"):
        export = quantize(model, scratch / f"{method}.gguf", method)
        put_stored(scratch / f"{method}.gguf", live)
        after = measured()
        found[method] = {"export": export} | {side: change(before[side], after[side]) for side in texts}
        say(f"{method}: " + ", ".join(f"{side} {found[method][side]['change']:+.4f}" for side in texts))
    return found


def change(before: Bits, after: Bits) -> dict[str, Any]:
    """Relative change of bits per byte with its interval."""
    rise = paired_change(before.bits, after.bits, before.bytes)
    return {
        "before": round(before.per_byte, 4),
        "after": round(after.per_byte, 4),
        "change": round(rise.relative, 5),
        "interval": [round(rise.low, 5), round(rise.high, 5)],
        "windows": len(before.bits),
    }


def tiny(folder: Path) -> Path:
    """A vocabulary of a thousand pieces of Gemma's kind, with letters of all five languages."""
    some = [line for language in SCRIPTS for line in lines(language, 150, SEED + 2)[30:]]
    write_random_gemma3(folder, [*prose("english"), *some], seed=0)
    return folder


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true")
    quick = options.parse_args().quick
    slots, tied, untied = PLACES
    with tempfile.TemporaryDirectory() as place:
        scratch = Path(place)
        if quick:
            bases = {
                "tiny gemma style": (tiny(scratch / "tiny"), (slots, tied, untied)),
                "smollm2": (smollm2(), (tied,)),
            }
            result = {"parity": all_parity(bases, scratch)}
        else:
            bases = {"gemma 3": (gemma(), (slots, tied, untied)), "smollm2": (smollm2(), (tied, untied))}
            result = {"parity": all_parity(bases, scratch), "end_to_end": {}}
            for at in PLACES:
                (scratch / at).mkdir()
                result["end_to_end"][at] = end_to_end(gemma(), at, scratch / at)
            result["loss"] = losses(scratch / slots / "model", scratch)
    print(json.dumps(result, ensure_ascii=False))


if __name__ == "__main__":
    main()
