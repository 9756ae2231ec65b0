"""Phase 2: check that the rows are there, give them values, and refuse a bad start."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection
from pathlib import Path
from typing import Any

from vocabgraft.durable import write_json
from vocabgraft.errors import ModelError, ProofError
from vocabgraft.machine import give_back_memory
from vocabgraft.recipe_sections import Init
from vocabgraft.steps.context import Context, StepResult
from vocabgraft.steps.data import probe_windows
from vocabgraft.steps.dictionary import coverage
from vocabgraft.steps.start import start
from vocabgraft.steps.tokenizer import bos_of, load_expansion
from vocabgraft.tokenizer.measure import load_tokenizer
from vocabgraft.training.graft import config_of

_EXAMPLES = 12  # new rows that the report shows


def resize(context: Context) -> StepResult:
    """Match tokenizer and matrices, from the files: slots need no resize, appended pieces need more rows."""
    base = context.base_folder()
    expansion, folder = load_expansion(context)
    config = config_of(base)
    text_config = config.get("text_config", config)
    shapes = _shapes(base)
    (name,) = [n for n in shapes if n.endswith("embed_tokens.weight")]
    rows = expansion.rows or shapes[name][0]
    tied = bool(config.get("tie_word_embeddings", text_config.get("tie_word_embeddings", True)))
    if rows < load_tokenizer(folder).get_vocab_size():
        raise ModelError(f"{base}: {rows:,} rows for {load_tokenizer(folder).get_vocab_size():,} tokens")
    stated = text_config.get("vocab_size", shapes[name][0])  # Gemma 3's own files leave defaults out
    if stated != shapes[name][0]:
        raise ModelError(f"{base}: config says {stated:,} rows, the matrix has {shapes[name][0]:,}")
    if tied == ("lm_head.weight" in shapes):
        raise ModelError(f"{base}: config says tied = {tied}, but lm_head.weight is {'there' if tied else 'missing'}")
    found = {
        "rows": rows,
        "width": shapes[name][1],
        "new_rows": len(expansion.ids),
        "tied": tied,
        "shape_changed": rows != shapes[name][0],
    }
    write_json(context.out / "rows.json", found)
    return StepResult(found)


def _shapes(folder: Path) -> dict[str, list[int]]:
    """Tensor shapes from the safetensors headers; no weight is loaded."""
    shapes: dict[str, list[int]] = {}
    for file in sorted(folder.glob("*.safetensors")):
        with file.open("rb") as f:
            size = int.from_bytes(f.read(8), "little")
            header = json.loads(f.read(size))
        shapes |= {k: v["shape"] for k, v in header.items() if k != "__metadata__"}
    return shapes


def initialise_rows(context: Context) -> StepResult:
    """Build the new rows, look at them, measure the start against the base, stop when it is out of bounds."""
    from vocabgraft.training.graft import prove_frozen, save_graft

    recipe, groups = context.recipe, ("input.new", "output.new")
    graft = open_state(context, None, with_adapters=False)
    before = graft.hashes()
    bits: dict[str, dict[str, float]] = {"target": {}, "replay": {}}
    _measure(context, graft.model, context.base_folder(), bits, "base")
    if not len(graft.rows.ids):
        save_graft(graft, context.out, None, groups)
        return StepResult({"train": [], "bits_per_byte": bits})
    english = old_text(context, graft)
    origins, alignment = start(context, graft, recipe.init, recipe.training.seed)
    proof = prove_frozen(before, graft.hashes(), groups, free=graft.rows.values_of(groups))
    seen, problems = _inspect(context, graft, origins)
    _measure(context, graft.model, load_expansion(context)[1], bits, "initialised")
    taken = english.taken_by(graft.rows.new["output"].detach())
    save_graft(graft, context.out, None, groups)
    _gate([*problems, *_bad_start(bits["target"], taken, recipe.init)])
    return StepResult(
        {
            "train": list(groups),
            "row_untied": graft.rows.row_untied,
            "methods": dict(sorted(Counter(o.method for o in origins).items())),
            "alignment": alignment,
            "dictionary": coverage(context),
            **seen,
            "english_kl": round(taken, 6),
            "bits_per_byte": bits,
            "frozen": proof,
        }
    )


def _inspect(context: Context, graft: Any, origins: list[Any]) -> tuple[dict[str, Any], list[str]]:
    """Write `rows.parquet`, one line a new row; figures of the rows, and what is wrong with them."""
    from vocabgraft.embedding.initialise import write_rows
    from vocabgraft.embedding.inspection import BIN, Limits, inspect_rows, nearest, problems, texts_of

    expansion, folder = load_expansion(context)
    init, old = context.recipe.init, ~graft.rows.is_new
    limits = Limits(*init.norm_range, init.max_copies, init.max_unused)
    tokenizer = load_tokenizer(folder)
    names = [tokenizer.id_to_token(i) or "" for i in range(len(old))]
    context.reporter.say("looking at the new rows: norms, copies, neighbours")
    norms, counts, told, seen = {}, {}, [], []
    for route in graft.rows.routes():
        rows, base = graft.rows.new[route].detach(), graft.rows.live[route].detach()
        found = inspect_rows(rows, base, old)
        ids, cosines = nearest(rows, base, old)
        norms[route], counts[route] = list(found.norms), list(found.histogram)
        told += problems(found, len(rows), sum(n == 0 for n in expansion.uses), limits)
        seen += zip(found.ranks.tolist(), texts_of(ids.tolist(), names), cosines.tolist(), strict=True)
    write_rows(origins, seen, context.out / "rows.parquet")
    pairs = list(zip(origins, seen, strict=True))
    examples = [
        {"piece": o.piece, "method": o.method, "parts": [names[i] for i in o.parts], "nearest": s[1]}
        for o, s in pairs[:: -(-len(pairs) // _EXAMPLES)]
    ]
    histogram = {"width": BIN, "counts": counts}
    return {"norms": norms, "norm_histogram": histogram, "examples": examples}, list(dict.fromkeys(told))


def open_state(context: Context, state: Path | None, *, with_adapters: bool, body: str | None = None) -> Any:
    """The base with everything learnt up to `state` (None: nothing), live, its matrices grown where pieces need it; the
    body under adapters as the recipe says, or `body`."""
    from vocabgraft.training.graft import open_graft, tensor_ids

    expansion, _ = load_expansion(context)
    spec = adapter_spec(context, body) if with_adapters else None
    context.reporter.say("loading the model" + (f", body in {spec.body}" if spec else ""))
    graft = open_graft(
        context.base_folder(),
        tensor_ids(expansion.ids),
        state,
        spec=spec,
        seed=context.recipe.training.seed,
        device=context.device(),
        size=expansion.rows,
        untie=state is None and context.recipe.init.row_untied,
    )
    give_back_memory()  # quantising a body to 4 bit leaves half a gigabyte behind
    return graft


def adapter_spec(context: Context, body: str | None = None) -> Any:
    """The adapters that the recipe asks for, over the body as it says, or `body`."""
    from vocabgraft.training.lora import AdapterSpec

    lora = context.recipe.lora
    return AdapterSpec(lora.rank, lora.alpha, lora.modules, body or lora.body, lora.kind)


def _measure(context: Context, model: Any, tokenizer: Path, bits: dict[str, dict[str, float]], when: str) -> None:
    for side, found in probe(context, model, tokenizer).items():
        bits[side][when] = found


def probe(
    context: Context, model: Any, tokenizer: Path, sides: Collection[str] = ("target", "replay")
) -> dict[str, float]:
    """Bits per byte of a live model on the held-out probe of both sides."""
    from vocabgraft.evaluation.bits import bits_per_byte

    found = {}
    bos, _ = bos_of(tokenizer)
    for side in sides:
        chosen = probe_windows(context, side, context.recipe.evaluate.probe_bytes)
        with context.reporter.bar(f"bits per byte, {side}", len(chosen)) as advance:
            measured = bits_per_byte(model, load_tokenizer(tokenizer), chosen, bos=bos, on_window=advance)
        found[side] = round(measured.per_byte, 5)
    return found


def old_text(context: Context, graft: Any) -> Any:
    """Held-out replay text as the untouched base sees it."""
    from vocabgraft.evaluation.taken import OldText

    base = context.base_folder()
    texts = probe_windows(context, "replay", context.recipe.evaluate.probe_bytes)
    return OldText(graft.model, load_tokenizer(base), texts, graft.rows.ids, bos=bos_of(base)[0])


def _bad_start(bits: dict[str, float], taken: float, init: Init) -> list[str]:
    told = []
    rise = bits["initialised"] / bits["base"]
    if rise > init.max_rise:
        told.append(
            f"the new rows start at {rise:.2f} times the base's bits per byte on held-out text, init.max_rise allows "
            f"{init.max_rise}; try init.method = 'subword-mean', another init.norm, or fewer pieces"
        )
    if taken > init.max_kl:
        told.append(
            f"new rows take {taken:.4f} nats a token from replay text, init.max_kl allows {init.max_kl}: as outputs "
            "they are too long or too near to frequent rows; lower init.norm"
        )
    return told


def _gate(problems: list[str]) -> None:
    if problems:
        raise ProofError("22-initialise: nothing was published\n" + "\n".join(f"  {p}" for p in problems))
