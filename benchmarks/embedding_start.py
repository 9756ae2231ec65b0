"""What giving values to new rows costs, and what other tools give them, side by side.

    python benchmarks/embedding_start.py             Gemma 3 270M, 6,143 pieces of medical law; 4B-shaped rows on disk
    python benchmarks/embedding_start.py --quick     the same with 512 pieces of our samples; 4 CPU-minutes on AVX2

`seconds` is of the recipe's default start alone, `step_seconds` and `peak_gb` of the whole of step 22 with it.
`english_kl` is in nats a token on the first 64 kB (quick: 8) of wikitext-2's test text, `kl_bound` log(1 + k / n).
`shape_4b` is a matrix of 262,144 x 2,560 random bf16 numbers, memory-mapped from a file as safetensors does: `extra_gb`
is memory that is not the file's. Beside ours: transformers' `resize_token_embeddings(mean_resizing=True)`, measured as
a start of the same pieces, and mergekit-tokensurgeon's OMP (when installed) on the same vectors: atoms, weights, time.
Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import math
import resource
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import torch
from embedding_bakeoff import LAW, QUICK, RECIPE, vocabgraft
from safetensors import safe_open
from safetensors.torch import save_file

from vocabgraft.embedding.initialise import NewPieces, build_rows
from vocabgraft.embedding.inspection import inspect_rows, nearest
from vocabgraft.embedding.wechsel import matching_pursuit
from vocabgraft.evaluation.taken import OldText
from vocabgraft.machine import detect, use_threads
from vocabgraft.recipe import load_recipe
from vocabgraft.run import Run
from vocabgraft.steps.context import Context, Silent
from vocabgraft.steps.embedding import old_text, open_state, probe
from vocabgraft.steps.start import start
from vocabgraft.steps.tokenizer import bos_of, load_expansion
from vocabgraft.tokenizer.measure import load_tokenizer

ROWS, WIDTH = 262_144, 2_560  # Gemma 3 4B
WIKITEXT = Path("../shared/data/en/wikitext2_test.txt")
ATOMS = 10


def memory_gb(field: str) -> float:
    """A line of /proc/self/status, in GB."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(f"{field}:")) / 1e6


def shape_4b(new: NewPieces, scratch: Path) -> dict[str, float]:
    """Rows of a matrix that stays on disk: seconds, and memory beside the file's own pages."""
    matrix = torch.randn(ROWS, WIDTH, generator=torch.Generator().manual_seed(0)).to(torch.bfloat16)
    save_file({"embed_tokens.weight": matrix}, str(scratch / "4b.safetensors"))
    del matrix
    before, most, done = memory_gb("RssAnon"), [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            most[0] = max(most[0], memory_gb("RssAnon"))

    watcher = threading.Thread(target=watch)
    watcher.start()
    began = time.monotonic()
    with safe_open(str(scratch / "4b.safetensors"), "pt") as file:
        base = file.get_tensor("embed_tokens.weight")
        rows, _ = build_rows(base, new, norm=0.75)
        old = torch.ones(ROWS, dtype=torch.bool)
        old[list(new.ids)] = False
        inspect_rows(rows, base, old)
        nearest(rows, base, old)
    seconds = time.monotonic() - began
    done.set()
    watcher.join()
    return {"seconds": round(seconds, 1), "extra_gb": round(most[0] - before, 2)}


def mean_resizing(context: Context, count: int) -> torch.Tensor:
    """Rows that transformers draws for new tokens, (count, D): a normal of the old rows' mean and covariance."""
    model = open_state(context, None, with_adapters=False).model
    size = len(model.get_input_embeddings().weight)
    torch.manual_seed(0)
    model.resize_token_embeddings(size + count, mean_resizing=True)
    found: torch.Tensor = model.get_input_embeddings().weight[size:].detach().clone()
    return found


def wikitext(context: Context, graft: Any, size: int) -> Any:
    """English that is in no corpus of ours as the base sees it, so many bytes; held-out replay text where it is not at
    hand."""
    if not WIKITEXT.is_file():
        return old_text(context, graft)
    base, text = context.base_folder(), WIKITEXT.read_text("utf-8")[:size]
    texts = [text[at : at + 1024] for at in range(0, len(text), 1024)]
    return OldText(graft.model, load_tokenizer(base), texts, graft.rows.ids, bos=bos_of(base)[0])


def starts(context: Context, size: int) -> dict[str, dict[str, float]]:
    """Bits per byte of target text and English KL (on so many bytes) at once: the recipe's start, its start at full
    size, and transformers' rows."""
    graft = open_state(context, None, with_adapters=False)
    untouched = {k: v.clone() for k, v in graft.rows.state().items()}
    english, folder = wikitext(context, graft, size), load_expansion(context)[1]
    found = {"base": {"bpb": probe(context, graft.model, context.base_folder(), ("target",))["target"]}}

    def measured(seconds: float) -> dict[str, float]:
        bits = probe(context, graft.model, folder, ("target",))["target"]
        taken = english.taken_by(graft.rows.new["output"].detach())
        return {"bpb": bits, "english_kl": round(taken, 6), "seconds": round(seconds, 1)}

    init, full = context.recipe.init, load_recipe(RECIPE, budget="full").init
    fields = ("method", "norm", "relative_lr", "row_epsilon")
    at_full_size = init.model_copy(update={name: getattr(full, name) for name in fields})
    for each in (init, at_full_size):
        began = time.monotonic()
        start(context, graft, each, context.recipe.training.seed)
        found[f"{each.method}@{each.norm:g}"] = measured(time.monotonic() - began)
        graft.rows.load(untouched)
    began = time.monotonic()
    rows = mean_resizing(context, len(graft.rows.ids))
    graft.rows.load({"input.new": rows.float()})
    found["transformers mean_resizing"] = measured(time.monotonic() - began)
    return found


def pursuits(pieces: int) -> dict[str, Any]:
    """Ours and mergekit's orthogonal matching pursuit on the same vectors."""
    generator = torch.Generator().manual_seed(0)
    sources, vectors = (
        torch.nn.functional.normalize(torch.randn(n, 64, generator=generator), dim=1) for n in (10_000, pieces)
    )
    began = time.monotonic()
    ours = [matching_pursuit(some, sources, ATOMS) for some in vectors.split(512)]
    seconds = time.monotonic() - began
    found: dict[str, Any] = {"pieces": pieces, "atoms": ATOMS, "seconds": round(seconds, 2)}
    try:
        from mergekit.tokensurgeon.omp import batch_omp
    except ImportError as e:
        return found | {"mergekit": f"not installed: {e}"}
    began = time.monotonic()
    theirs = [batch_omp(some, sources, ATOMS) for some in vectors.split(512)]
    apart = []
    for (a, x), (b, y), some in zip(ours, theirs, vectors.split(512), strict=True):
        errors = [(some - (w[:, None] @ sources[at]).squeeze(1)).norm(dim=1) for at, w in ((a, x), (b, y))]
        apart.append((errors[0] - errors[1]).abs())
    same = torch.cat(
        [(a.sort(1).values == b.sort(1).values).all(1) for (a, _), (b, _) in zip(ours, theirs, strict=True)]
    )
    return found | {
        "mergekit_seconds": round(time.monotonic() - began, 2),
        "same_atoms": round(float(same.float().mean()), 4),
        "most_difference_of_the_rest": round(float(torch.cat(apart).max()), 6),
    }


def main() -> None:
    """Make a run up to step 22, then measure."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smoke budget, 512 pieces")
    arguments = parser.parse_args()
    if not arguments.quick and not Path("../shared/data").is_dir():
        print(json.dumps({"skipped": "../shared/data is not here; this benchmark needs the development data"}))
        return
    with tempfile.TemporaryDirectory() as place:
        scratch, settings = Path(place), QUICK if arguments.quick else LAW
        vocabgraft("run", RECIPE, *settings, "--folder", str(scratch / "run"), "--until", "22-initialise")
        run = Run.open(scratch / "run")
        manifest = run.manifest("22-initialise")
        assert manifest is not None
        machine = detect(run.folder)
        use_threads(machine.threads)
        context = Context("22-initialise", ("21-resize",), run.recipe, run, scratch, machine, Silent())
        expansion, _ = load_expansion(context)
        new = NewPieces(expansion.ids, expansion.pieces, expansion.parts)
        rows = json.loads(run.path("21-resize", "rows.json").read_text("utf-8"))["rows"]
        found = starts(context, 8_192 if arguments.quick else 65_536)
        name = next(n for n in found if "@" in n)
        print(found, file=sys.stderr)
        print(
            json.dumps(
                {
                    "pieces": len(expansion.ids),
                    "default": name,
                    "seconds": found[name]["seconds"],
                    "step_seconds": round(manifest.seconds, 1),
                    "english_kl": found[name]["english_kl"],
                    "kl_bound": round(math.log1p(len(expansion.ids) / (rows - len(expansion.ids))), 6),
                    "peak_gb": manifest.peak_memory_gb,
                    "shape_4b": shape_4b(new, scratch),
                    "starts": found,
                    "alignment": manifest.metrics["alignment"],
                    "matching_pursuit": pursuits(len(expansion.ids)),
                    "whole_benchmark_peak_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6, 2),
                }
            )
        )


if __name__ == "__main__":
    main()
