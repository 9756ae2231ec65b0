"""Part of 61-quantize: the folder that vLLM loads, by the first method of the recipe that loses little enough."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vocabgraft.corpus.document import Tally
from vocabgraft.errors import ProofError
from vocabgraft.machine import cache_folder, give_back_memory
from vocabgraft.steps.context import Context
from vocabgraft.steps.data import SIDES, probe_windows, shuffled_texts
from vocabgraft.steps.instruct import tuning_pairs
from vocabgraft.steps.questions import sampled, unseen_questions
from vocabgraft.steps.tokenizer import bos_of
from vocabgraft.tokenizer.measure import encode, load_tokenizer

if TYPE_CHECKING:
    from vocabgraft.deployment.compression_gate import Attempt, Material, Measured

COMPRESSED = "compressed"
_SEED = 61
_CHUNKS = 4  # windows of one document, so that calibration sees many documents


def compressed_model(context: Context, model: Path) -> dict[str, Any]:
    """Write `compressed/` and return its receipt; an empty one where the recipe names no method.

    Every attempt is measured on the weights as stored, against the full model on the same items, and told.
    ProofError when none stays within `[deploy.compress]`.
    """
    spec, say = context.recipe.deploy.compress, context.reporter.say
    if not spec.methods:
        return {}
    from vocabgraft.deployment.compress import check_fits
    from vocabgraft.deployment.compression_gate import first_that_passes
    from vocabgraft.deployment.compressor_environment import compressor_python

    check_fits(model)
    python = compressor_python(cache_folder(), say)
    trial = _Trial(context, model, python, calibration(context, model), _material(context))
    full = trial.measured(None)
    rounded = trial.attempt("rtn", full)
    _tell(context, rounded)
    chosen, tried = first_that_passes(
        spec.methods, lambda m: trial.attempt(m, full), lambda a: _tell(context, a, rounded)
    )
    if chosen is None:
        raise ProofError(_refusal(tried, rounded))
    trial.folder(chosen.method).rename(context.out / COMPRESSED)
    return {
        "method": chosen.method,
        "bytes": chosen.facts["bytes"],
        "attempts": [a.as_json() | {"worse_than_rounding": a.worse_than(rounded)} for a in tried],
        "rounding": rounded.as_json(),
        "verdict": _verdict(chosen, rounded),
    }


@dataclass(frozen=True)
class _Trial:
    """What every method is given alike."""

    context: Context
    model: Path
    python: Path
    texts: list[list[int]]
    material: Material

    def folder(self, method: str) -> Path:
        """Where a method writes until it may ship."""
        return self.context.out / f"{COMPRESSED}-{method}"

    def attempt(self, method: str, full: Measured) -> Attempt:
        """Compress and measure; a folder that may not ship is removed."""
        from vocabgraft.deployment.compress import compress
        from vocabgraft.deployment.compression_gate import Attempt, losses

        spec, out = self.context.recipe.deploy.compress, self.folder(method)
        shutil.rmtree(out, ignore_errors=True)  # of an interrupted step
        facts = compress(
            self.model,
            out,
            method,
            python=self.python,
            calibration=self.texts,
            # A CPU without AVX-512 needs several times as long in bfloat16.
            dtype="float32" if self.context.device() == "cpu" else "bfloat16",
            say=lambda text: self.context.reporter.say(f"{method}: {text}"),
        )
        limits = {"max_rise": spec.max_rise, "max_accuracy_loss": spec.max_accuracy_loss}
        found = Attempt(method, losses(full, self.measured(out), self.material, **limits), facts)
        if method == "rtn" or not found.passed:
            shutil.rmtree(out)
        return found

    def measured(self, folder: Path | None) -> Measured:
        """The full model, or what a folder stores of it, in the precision that it is served in."""
        from vocabgraft.deployment.compressed_weights import put_compressed
        from vocabgraft.deployment.compression_gate import measure
        from vocabgraft.models.load import load_model
        from vocabgraft.training.chat import ChatFormat

        self.context.reporter.say(f"measuring {folder.name if folder else 'the full model'}")
        live = load_model(self.model, device=self.context.device())
        if folder is not None:
            put_compressed(folder, live)
        tokenizer = load_tokenizer(self.model)
        found = measure(live, tokenizer, ChatFormat(self.model), bos_of(self.model), self.material)
        del live
        give_back_memory()
        return found


def _material(context: Context) -> Material:
    from vocabgraft.deployment.compression_gate import Material

    recipe = context.recipe
    evaluate = recipe.evaluate
    sources = dict(zip(SIDES, (evaluate.target_questions, evaluate.replay_questions), strict=True))
    return Material(
        {side: probe_windows(context, side, evaluate.final_bytes) for side in SIDES},
        {s: sampled(unseen_questions(recipe, names, Tally()), evaluate.max_questions) for s, names in sources.items()},
    )


def calibration(context: Context, model: Path) -> list[list[int]]:
    """Token ids of what the compressor reads: half tuning pairs in the chat format, a quarter each side's text.

    All of it was trained on: nothing held out, no question that an evaluation asks. Fewer than asked for where there is
    no more.
    """
    from vocabgraft.training.chat import ChatFormat

    spec = context.recipe.deploy.compress
    tokenizer, (bos, piece), chat = load_tokenizer(model), bos_of(model), ChatFormat(model)
    pairs, _ = tuning_pairs(context.recipe)
    chosen = [
        list(chat.example(tokenizer, piece, *pair).tokens[: spec.window]) for pair in _spread(pairs, spec.samples // 2)
    ]
    left = spec.samples - len(chosen)
    for side, share in zip(SIDES, (left - left // 2, left // 2), strict=True):
        chunks = _chunks(tokenizer, shuffled_texts(context, side, _SEED), bos, spec.window)
        chosen += [ids for ids, _ in zip(chunks, range(share), strict=False)]
    return chosen


def _spread(pairs: list[tuple[str, str]], most: int) -> list[tuple[str, str]]:
    """At most so many pairs, evenly over their order: every source keeps its share."""
    count = min(most, len(pairs))
    return [pairs[n * len(pairs) // count] for n in range(count)]


def _chunks(tokenizer: Any, texts: list[str], bos: int, window: int) -> Iterator[list[int]]:
    for text in texts:
        (ids,) = encode(tokenizer, [text])
        for n in range(0, min(len(ids), _CHUNKS * (window - 1)), window - 1):
            yield [bos, *ids[n : n + window - 1]]


def _tell(context: Context, found: Attempt, rounded: Attempt | None = None) -> None:
    """Say and keep in the ledger what a method lost: a refusal is to be read there too."""
    worse = _worse(found, rounded) if rounded else ""
    context.reporter.say(found.sentence + worse)
    context.run.log("compression", step=context.key, method=found.method, passed=found.passed, found=found.sentence)


def _worse(found: Attempt, rounded: Attempt) -> str:
    sides = found.worse_than(rounded)
    return f"; loses more bits than plain rounding to 4 bits (rtn) on {' and '.join(sides)} text" if sides else ""


def _verdict(chosen: Attempt, rounded: Attempt) -> str:
    return f"Shipped: {chosen.sentence}{_worse(chosen, rounded)}. Plain rounding to 4 bits: {rounded.sentence}."


def _refusal(tried: list[Attempt], rounded: Attempt) -> str:
    lines = [f"  {a.sentence}{_worse(a, rounded)}" for a in tried] + [f"  beside, {rounded.sentence}"]
    return (
        "61-quantize: no method of deploy.compress.methods loses little enough; nothing was published\n"
        + "\n".join(lines)
        + "\nAllow more (deploy.compress.max_rise, max_accuracy_loss), add 'w8a16', or ship GGUF alone (methods = [])"
    )
