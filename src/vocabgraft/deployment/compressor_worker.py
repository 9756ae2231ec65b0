"""Compress one model folder with llm-compressor: a program of its own, run inside the environment that holds it.

llm-compressor pins versions that nothing else here wants, so it lives apart (`compressor_environment.py`) and this file
imports nothing of vocabgraft. It is given a JSON job

    {"model": folder, "out": folder, "method": "awq", "calibration": file, "dtype": "bfloat16"}

and tells what it does on standard output, one JSON object a line: {"say": …} on the way, {"result": …} or
{"error": …} at the end. Nothing is fetched and no code of a model is run. `out` appears when it is complete.
"""

from __future__ import annotations

import json
import os
import resource
import shutil
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

SCHEMES = {"awq": "W4A16_ASYM", "gptq": "W4A16_ASYM", "rtn": "W4A16_ASYM", "w8a16": "W8A16"}
# In 16 bit as they are: the head, and in a multimodal Gemma 3 everything that sees.
IGNORED = ["lm_head", "re:.*vision_tower.*", "re:.*multi_modal_projector.*"]


def tell(**what: Any) -> None:
    """One line of news for the process that waits."""
    sys.__stdout__.write(json.dumps(what) + "\n")
    sys.__stdout__.flush()


def recipe(method: str, model: Any) -> list[Any]:
    """Modifiers of llm-compressor for a method: AWQ moves scales between layers, then rounds; RTN and W8A16 round."""
    from llmcompressor.modifiers.gptq import GPTQModifier
    from llmcompressor.modifiers.quantization import QuantizationModifier
    from llmcompressor.modifiers.transform.awq import AWQModifier

    how = {"targets": ["Linear"], "scheme": SCHEMES[method], "ignore": IGNORED}
    if method == "gptq":
        return [telling(GPTQModifier)(**how)]
    if method == "awq":
        return [telling(AWQModifier)(duo_scaling="both", mappings=mappings(model)), QuantizationModifier(**how)]
    return [QuantizationModifier(**how)]


def mappings(model: Any) -> Any:
    """Which layers AWQ balances; None for what llm-compressor knows of the architecture.

    Its patterns for a multimodal Gemma 3 match the vision tower too, and 0.14 stops there ("needs to match a single
    smoothlayer"), so they are held to the decoder.
    """
    from llmcompressor.modifiers.transform.awq.mappings import AWQ_MAPPING_REGISTRY

    known = AWQ_MAPPING_REGISTRY.get(type(model).__name__)
    if known is None or not hasattr(model.config, "vision_config"):
        return None

    def held(pattern: str) -> str:
        return pattern.replace("re:.*", "re:.*language_model.*", 1)

    return [type(m)(held(m.smooth_layer), [held(b) for b in m.balance_layers]) for m in known]


def telling(kind: Any) -> Any:
    """A modifier that says when a layer is done."""

    class Telling(kind):
        def on_sequential_epoch_end(self, *args: Any, **kwargs: Any) -> Any:
            found = super().on_sequential_epoch_end(*args, **kwargs)
            done["layers"] += 1
            tell(say=f"{done['layers']} layers done")
            return found

    done = {"layers": 0}
    return Telling


def run_without_accelerator() -> None:
    """AWQ in llm-compressor 0.14 pins memory for a device and fails where there is none; then it need not."""
    import torch
    from llmcompressor.pipelines.cache import IntermediatesCache

    if not torch.accelerator.is_available():
        IntermediatesCache.pin_memory = lambda *_, **__: None


def samples(file: Path) -> Any:
    """A loader of one text at a time from JSON lines of token ids, in the order of the file."""
    import torch

    with file.open(encoding="utf-8") as lines:
        ids = [json.loads(line) for line in lines]
    rows = [
        {"input_ids": torch.tensor([row]), "attention_mask": torch.ones(1, len(row), dtype=torch.long)} for row in ids
    ]
    return torch.utils.data.DataLoader(rows, batch_size=None, shuffle=False)


def compress(job: dict[str, Any], out: Path) -> dict[str, Any]:
    """Write the compressed folder; returns how many texts and tokens were read and what it took."""
    import torch
    from llmcompressor import oneshot
    from transformers import AutoModelForCausalLM, AutoTokenizer

    run_without_accelerator()
    source, method, started = Path(job["model"]), job["method"], time.monotonic()
    tell(say="loading the model")
    model = AutoModelForCausalLM.from_pretrained(source, dtype=getattr(torch, job["dtype"]), use_safetensors=True)
    model.eval()
    read: dict[str, Any] = {}
    if method in ("awq", "gptq"):
        loader = samples(Path(job["calibration"]))
        read = {"dataset": loader, "num_calibration_samples": len(loader)}
    tell(say=f"compressing by {method}")
    oneshot(model=model, processor=AutoTokenizer.from_pretrained(source), recipe=recipe(method, model), **read)
    tell(say="writing")
    model.to(torch.bfloat16)
    model.save_pretrained(out, save_compressed=True)
    keep_what_belongs(source, out)
    seconds = time.monotonic() - started
    return {
        "samples": len(read["dataset"]) if read else 0,
        "tokens": sum(row["input_ids"].numel() for row in read["dataset"]) if read else 0,
        "seconds": round(seconds, 1),
        "peak_memory_gb": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 2),
        "versions": {name: version(name) for name in ("llmcompressor", "compressed-tensors", "transformers", "torch")},
        "bytes": sum(p.stat().st_size for p in out.glob("*.safetensors")),
    }


def keep_what_belongs(source: Path, out: Path) -> None:
    """Weights and configuration as written; tokenizer files byte for byte as in the source; nothing else."""

    def made_here(path: Path) -> bool:
        return path.name == "config.json" or path.name.endswith((".safetensors", ".safetensors.index.json"))

    for path in out.iterdir():
        if made_here(path):
            path.chmod(0o644)  # safetensors writes for its owner alone
        else:
            path.unlink()
    for path in source.iterdir():
        if path.suffix in {".json", ".jinja", ".model"} and not made_here(path):
            shutil.copyfile(path, out / path.name)


def main() -> None:
    """Do the job whose file is named; errors are told in one line."""
    sys.stdout = sys.stderr  # what the libraries print is no news
    job = json.loads(Path(sys.argv[1]).read_text("utf-8"))
    out = Path(job["out"])
    partial = out.with_name(out.name + ".partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        result = compress(job, partial)
    except Exception as e:
        shutil.rmtree(partial, ignore_errors=True)
        tell(error=f"{type(e).__name__}: {e}")
        raise
    os.replace(partial, out)
    tell(result=result)


if __name__ == "__main__":
    main()
