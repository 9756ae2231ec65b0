"""Phase 6: the formats that ship, each proven to be the model that was trained; then serve it and ask."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from vocabgraft.durable import write_text
from vocabgraft.errors import ProofError, RunError
from vocabgraft.report.card import model_card, notice
from vocabgraft.report.ledger import read_ledger
from vocabgraft.steps.compression import COMPRESSED, compressed_model
from vocabgraft.steps.context import Context, StepResult
from vocabgraft.steps.data import probe_windows
from vocabgraft.steps.embedding import probe
from vocabgraft.steps.instruct import final_model

FULL = "model-f16.gguf"


def quantize_model(context: Context) -> StepResult:
    """Write HF folder, GGUF in f16 and 4 bit, and what vLLM loads; measure their cost; compare HF and GGUF greedily."""
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
    metrics = {"files": files, "bits_per_byte": bits, "greedy": greedy}
    if compressed := compressed_model(context, model):
        files[f"{COMPRESSED}/*.safetensors"] = {"bytes": compressed["bytes"]}
        metrics["compressed"] = compressed
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
    """Start the server on this machine, prove that it refuses strangers, ask in the target language, stop."""
    from vocabgraft.deployment.serve import LlamaServer, new_key

    gguf_file = quantised_file(context.run.path("61-quantize"))
    question = context.recipe.deploy.question
    with LlamaServer(gguf_file, key=new_key(), threads=context.machine.threads) as server:
        routes = server.refuses_without_key()
        open_routes = sorted(r for r, status in routes.items() if status not in (401, 403))
        if open_routes:
            raise ProofError(f"62-serve: answers without a key on {', '.join(open_routes)}")
        reply = server.chat([{"role": "user", "content": question}], max_tokens=96)
    if not reply["text"].strip():
        raise ProofError(f"62-serve: empty answer to {question!r}")
    context.reporter.say(f"asked: {question}")
    context.reporter.say(f"answered: {reply['text'].strip()}")
    write_text(context.out / "answer.txt", reply["text"])
    return StepResult(
        {
            "engine": "llama.cpp (xllamacpp)",
            "model": gguf_file.name,
            "question": question,
            "answer": reply["text"],
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
