"""Phase 6: the formats that ship, each proven to be the model that was trained; then serve it and ask."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from vocabgraft.durable import write_text
from vocabgraft.errors import ProofError, RunError
from vocabgraft.report.card import model_card, notice
from vocabgraft.report.ledger import read_ledger
from vocabgraft.run import Run
from vocabgraft.steps.context import Context, StepResult, base_folder
from vocabgraft.steps.data import probe_windows
from vocabgraft.steps.embedding import probe
from vocabgraft.steps.instruct import final_model

FULL = "model-f16.gguf"


def quantize_model(context: Context) -> StepResult:
    """Write HF folder, f16 GGUF and 4-bit GGUF; measure what quantising costs; compare HF and GGUF greedily."""
    from vocabgraft.deployment.quantize import put_stored, quantize
    from vocabgraft.models.load import load_model

    recipe, say = context.recipe, context.reporter.say
    model = final_model(context)
    shipped = context.out / "model"
    shutil.copytree(model, shipped, dirs_exist_ok=True)
    ledger = read_ledger(context.run.folder)
    write_text(shipped / "NOTICE", notice(ledger))
    write_text(shipped / "README.md", model_card(ledger))
    name = f"{recipe.base.name}-{recipe.name}"
    full, small = context.out / FULL, context.out / f"model-{recipe.deploy.quantize}.gguf"
    from vocabgraft.deployment.gguf_export import export_gguf

    say("writing GGUF files")
    export_gguf(model, full, quantization="f16", name=name, license_id=recipe.base.license)
    quantize(model, small, recipe.deploy.quantize, name=name, license_id=recipe.base.license)
    live = load_model(model, device=context.device())
    bits = {"full": probe(context, live, model)}
    say("measuring the quantised weights")
    put_stored(small, live)
    bits["quantised"] = probe(context, live, model)
    del live
    _gate(bits, recipe.deploy.max_rise)
    greedy = _agreement(context, model, full)
    files = {p.name: {"bytes": p.stat().st_size} for p in (full, small)}
    files["model/model.safetensors"] = {"bytes": (shipped / "model.safetensors").stat().st_size}
    return StepResult({"files": files, "bits_per_byte": bits, "greedy": greedy})


def _gate(bits: dict[str, dict[str, float]], most: float) -> None:
    for side, before in bits["full"].items():
        rise = bits["quantised"][side] / before - 1
        if rise > most:
            raise ProofError(
                f"61-quantize: quantising raises bits per byte on {side} text by {rise:.1%}; deploy.max_rise allows "
                f"{most:.1%}. Use deploy.quantize = 'q8_0', or allow more"
            )


def _agreement(context: Context, model: Path, gguf_file: Path) -> dict[str, Any]:
    from vocabgraft.deployment.agreement import greedy_agreement
    from vocabgraft.deployment.serve import LlamaServer, new_key

    half = context.recipe.deploy.greedy_prompts // 2
    prompts = [" ".join(t.split()[:12]) for t in probe_windows(context, "target", 1 << 20)[:half]]
    missing = context.recipe.deploy.greedy_prompts - len(prompts)
    prompts += [" ".join(t.split()[:12]) for t in probe_windows(context, "replay", 1 << 20)[:missing]]
    context.reporter.say(f"comparing greedy answers of transformers and llama.cpp on {len(prompts)} prompts")
    with LlamaServer(gguf_file, key=new_key(), threads=context.machine.threads) as server:
        rows = greedy_agreement(model, server, prompts)
    differing = [{k: r.get(k) for k in ("prompt", "first_difference", "margin")} for r in rows if not r["equal"]]
    return {"prompts": len(rows), "equal": sum(r["equal"] for r in rows), "differing": differing}


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
    """The 4-bit (or 8-bit) GGUF of 61-quantize."""
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
