"""Phase 6: the formats that ship, each proven to be the model that was trained; then serve it and ask."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vocabgraft.durable import write_text
from vocabgraft.errors import ProofError, RunError
from vocabgraft.run import Run
from vocabgraft.steps.compression import COMPRESSED, compressed_model
from vocabgraft.steps.context import Context, StepResult, base_folder
from vocabgraft.steps.data import probe_windows
from vocabgraft.steps.embedding import probe
from vocabgraft.steps.instruct import final_model
from vocabgraft.steps.shipping import ship_adapter, write_papers

FULL = "model-f16.gguf"
_COMPARED = 50  # prompts after which next tokens are compared: a forward pass each


def quantize_model(context: Context) -> StepResult:
    """Write what ships: HF folder, adapter, GGUF in f16 and fewer bits, what vLLM loads; measure what each loses, and
    what transformers and llama.cpp say next."""
    from vocabgraft.deployment.quantize import put_stored, quantize
    from vocabgraft.models.load import load_model

    recipe, say = context.recipe, context.reporter.say
    model = final_model(context)
    shipped = context.out / "model"
    shutil.copytree(model, shipped, dirs_exist_ok=True)
    name = f"{recipe.base.name}-{recipe.name}"
    full, small = context.out / FULL, context.out / f"model-{recipe.deploy.quantize}.gguf"
    from vocabgraft.deployment.gguf_export import export_gguf

    say("writing GGUF files")
    named = {"name": name, "license_id": recipe.base.license}
    written = {
        full.name: export_gguf(model, full, quantization="f16", **named),
        small.name: quantize(model, small, recipe.deploy.quantize, **named),
    }
    live = load_model(model, device=context.device())
    bits = {"full": probe(context, live, model)}
    say("measuring the quantised weights")
    put_stored(small, live)
    bits["quantised"] = probe(context, live, model)
    del live
    _gate(bits, recipe.deploy.max_rise)
    agreement = _agreement(context, model, full)
    weights = {"bytes": sum(p.stat().st_size for p in shipped.glob("*.safetensors"))}
    files = written | {"model/*.safetensors": weights, "adapter/": {"bytes": ship_adapter(context)}}
    metrics = {"files": files, "bits_per_byte": bits, **agreement}
    if compressed := compressed_model(context, model):
        files[f"{COMPRESSED}/*.safetensors"] = {"bytes": compressed["bytes"]}
        metrics["compressed"] = compressed
    write_papers(context, metrics)
    return StepResult(metrics)


def _gate(bits: dict[str, dict[str, float]], most: float) -> None:
    for side, before in bits["full"].items():
        rise = bits["quantised"][side] / before - 1
        if rise > most:
            raise ProofError(
                f"61-quantize: quantising raises bits per byte on {side} text by {rise:.1%}; deploy.max_rise allows "
                f"{most:.1%}. Use deploy.quantize = 'q8_0', or allow more"
            )


def _agreement(context: Context, model: Path, gguf_file: Path) -> dict[str, Any]:
    """What transformers and llama.cpp say next: log-probabilities (a gate), then greedy answers (counted)."""
    from vocabgraft.deployment.agreement import Reference, greedy_agreement, next_token_agreement
    from vocabgraft.deployment.serve import LlamaServer, new_key

    reference = Reference.load(model)
    with LlamaServer(gguf_file, key=new_key(), threads=context.machine.threads) as server:
        asked = _prompts(context, _COMPARED)
        context.reporter.say(f"comparing the next tokens of transformers and llama.cpp on {len(asked)} prompts")
        next_token = next_token_agreement(reference, server, asked)
        _gate_agreement(next_token)
        asked = _prompts(context, context.recipe.deploy.greedy_prompts)
        context.reporter.say(f"comparing their greedy answers on {len(asked)} prompts")
        rows = greedy_agreement(reference, server, asked)
    differing = [{k: r.get(k) for k in ("prompt", "first_difference", "margin")} for r in rows if not r["equal"]]
    greedy = {"prompts": len(rows), "equal": sum(r["equal"] for r in rows), "differing": differing}
    return {"next_token": next_token, "greedy": greedy}


def _prompts(context: Context, count: int) -> list[str]:
    """The first words of held-out windows, half of them of the target language."""
    target, replay = (
        [" ".join(t.split()[:12]) for t in probe_windows(context, side, 1 << 20)] for side in ("target", "replay")
    )
    found = target[: count // 2]
    return found + replay[: count - len(found)]


def _gate_agreement(found: dict[str, Any]) -> None:
    from vocabgraft.deployment.agreement import CLOSE

    if found["largest"] > CLOSE:
        raise ProofError(
            f"61-quantize: log-probabilities of transformers and llama.cpp differ by up to {found['largest']:.2f} nats "
            f"(allowed: {CLOSE}), most after {found['worst']!r}. The GGUF file is not the model: compare the versions "
            "of gguf and xllamacpp with those in docs/design.md, and report it"
        )


def serve_model(context: Context) -> StepResult:
    """Serve on this machine, prove that every route refuses strangers, ask in the target language, stop."""
    from vocabgraft.deployment.engines import open_server
    from vocabgraft.deployment.serve import new_key

    gguf_file = quantised_file(context.run.path("61-quantize"))
    question = context.recipe.deploy.question
    with open_server("llama.cpp", gguf_file, key=new_key(), threads=context.machine.threads) as server:
        routes = server.refuses_without_key()
        open_routes = sorted(r for r, status in routes.items() if status != 401)
        if open_routes:
            raise ProofError(f"62-serve: answers without a key on {', '.join(open_routes)}")
        if not server.healthy():
            raise ProofError("62-serve: the health check fails")
        reply = server.chat([{"role": "user", "content": question}], max_tokens=96)
    said = reply["text"] or reply["reasoning"]  # a model that thinks first may not get to the answer
    if not said.strip():
        raise ProofError(f"62-serve: empty answer to {question!r}")
    context.reporter.say(f"asked: {question}")
    context.reporter.say(f"answered: {said.strip()}")
    write_text(context.out / "answer.txt", said)
    return StepResult(
        {
            "engine": "llama.cpp (xllamacpp)",
            "model": gguf_file.name,
            "question": question,
            "answer": said,
            "routes": routes,
            "tokens_per_second": round(reply["tokens"] / reply["seconds"], 1) if reply["seconds"] else None,
        }
    )


def quantised_file(folder: Path) -> Path:
    """The small GGUF of 61-quantize."""
    found = [p for p in folder.glob("model-*.gguf") if p.name != FULL]
    if len(found) != 1:
        raise RunError(f"{folder}: {len(found)} quantised files, one is needed; redo it with --from {folder.name}")
    return found[0]


def base_gguf(run: Run, say: Callable[[str], None]) -> Path:
    """The base in the run's own quantised format, in the run folder; made when first asked for."""
    from vocabgraft.deployment.quantize import quantize

    base, method = run.recipe.base, run.recipe.deploy.quantize
    manifest = run.manifest("01-sources")
    stamp = manifest.fingerprint[:12] if manifest else ""
    out = run.folder / "compare" / f"base-{stamp}-{method}.gguf"
    if not out.is_file():
        say(f"writing the base as {method} too, once: {out}")
        out.parent.mkdir(exist_ok=True)
        quantize(base_folder(run), out, method, name=base.name, license_id=base.license)
    return out
