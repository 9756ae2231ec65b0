"""Compress a model folder for vLLM: AWQ, GPTQ, round-to-nearest or 8-bit weights, by llm-compressor in its own process.

The body's linear layers are held in few bits, in groups of 128 columns; head, embedding and vision tower stay in 16.
AWQ (arXiv 2306.00978) and GPTQ (arXiv 2210.17323) read calibration text; the other two only round.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal

from vocabgraft.errors import MachineError, ModelError
from vocabgraft.models.headers import read_headers
from vocabgraft.models.load import check_folder

Method = Literal["awq", "gptq", "w8a16", "rtn"]
Say = Callable[[str], None]
GROUP = 128  # columns that share a scale
WORKER = Path(__file__).with_name("compressor_worker.py")
_COMPRESSED = re.compile(r"(?:^|\.)layers\.\d+\..*proj\.weight$")
_MACHINE = re.compile(r"no space left|os error 28|out of memory|cannot allocate memory", re.IGNORECASE)
# As `machine.keep_freed_memory` does for us: on a CPU fresh pages cost more than the arithmetic.
_KEEP_FREED_MEMORY = {
    "MALLOC_MMAP_THRESHOLD_": str(32 << 20),
    "MALLOC_TRIM_THRESHOLD_": str(256 << 20),
    "MALLOC_TOP_PAD_": str(16 << 20),
}
_WORDS = 600  # characters of an error that are shown


def compress(
    model_folder: Path,
    out: Path,
    method: Method,
    *,
    python: Path,
    calibration: Sequence[Sequence[int]] = (),
    dtype: str = "bfloat16",
    say: Say = lambda _: None,
) -> dict[str, Any]:
    """Write `out`, a folder that vLLM loads; returns samples, tokens, seconds, peak memory and bytes of weights.

    python: of the compressor's environment (`compressor_environment.compressor_python`). calibration: token ids of each
    text, BOS included; AWQ and GPTQ need some. dtype: what is computed in; what is stored is bf16 and packed integers.
    `out` appears when it is complete. Raises ModelError when the model does not fit or the compressor refuses it.
    """
    check_fits(model_folder)
    if method in ("awq", "gptq") and not calibration:
        raise ModelError(f"{method}: no calibration text; give some, or compress by 'w8a16', which needs none")
    with TemporaryDirectory(prefix="compress-", dir=out.parent) as place:
        texts, job = Path(place) / "calibration.jsonl", Path(place) / "job.json"
        texts.write_text("".join(json.dumps(list(ids)) + "\n" for ids in calibration), "utf-8")
        asked = {"model": model_folder, "out": out, "calibration": texts}
        paths = {name: str(path.resolve()) for name, path in asked.items()}
        job.write_text(json.dumps({**paths, "method": method, "dtype": dtype}), "utf-8")
        try:
            return _run(python, job, Path(place) / "worker.log", f"{method} of {model_folder}", say)
        finally:
            shutil.rmtree(out.with_name(out.name + ".partial"), ignore_errors=True)


def check_fits(model_folder: Path) -> None:
    """Refuse a damaged folder and a model whose layers do not divide into groups, before anything is installed."""
    check_folder(model_folder)
    tensors, problems = read_headers(model_folder)
    if problems:
        raise ModelError(f"{model_folder}: {problems[0]}")
    layers = {n: t.shape for n, t in tensors.items() if _COMPRESSED.search(n) and "vision_tower" not in n}
    odd = [f"{n} has {shape[-1]:,} columns" for n, shape in layers.items() if shape[-1] % GROUP]
    if odd or not layers:
        reason = odd[0] if odd else "it has no linear layer that is known here"
        raise ModelError(
            f"{model_folder}: cannot be compressed in groups of {GROUP} columns: {reason}; "
            "ship it as GGUF alone (deploy.compress.methods = [])"
        )


def _run(python: Path, job: Path, log: Path, what: str, say: Say) -> dict[str, Any]:
    """Run the worker, pass on its news, return its result; an error is its last words."""
    environment = {k: v for k, v in os.environ.items() if not k.startswith("PYTHON")}
    environment |= {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
    environment |= _KEEP_FREED_MEMORY
    command, told = [str(python), "-I", str(WORKER), str(job)], {}
    with log.open("w", encoding="utf-8") as errors:
        try:
            worker = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True, env=environment)
        except OSError as e:
            raise MachineError(f"{python}: cannot be run ({e.strerror}); delete its environment to have it anew") from e
        with worker:
            try:
                for row in _news(worker):
                    told |= row
                    if "say" in row:
                        say(row["say"])
            except BaseException:
                worker.kill()
                raise
    if "result" in told:
        return told["result"]
    if worker.returncode < 0:
        raise MachineError(
            f"{what}: the compressor was killed (signal {-worker.returncode}); mostly memory ran out: use a machine "
            "with more, or fewer and shorter calibration texts (deploy.compress.samples, deploy.compress.window)"
        )
    # An error is told from its beginning, what was printed without one from its end.
    reason = " ".join(told["error"].split())[:_WORDS] if "error" in told else _end(log)
    if _MACHINE.search(reason):  # another method would fare no better
        raise MachineError(f"{what}: the machine has too little disk or memory ({reason}); make room, or use another")
    raise ModelError(f"{what}: the compressor failed ({reason or 'without a word'})")


def _news(worker: subprocess.Popen[str]) -> Iterator[dict[str, Any]]:
    """The lines of JSON that the worker writes; anything else is not for us."""
    for line in worker.stdout or ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if isinstance(row, dict):
            yield row


def _end(log: Path) -> str:
    return " ".join(log.read_text("utf-8").split())[-_WORDS:]
