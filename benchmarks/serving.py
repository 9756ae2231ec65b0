"""How fast a served model writes and reads Korean: the base against an expanded model, every format and engine.

    python benchmarks/serving.py              llama.cpp f16, q8_0, q4_k_m, transformers bf16, f32, vLLM where it is
    python benchmarks/serving.py --quick      one passage each, transformers f32 only; at most 3 minutes
    python benchmarks/serving.py --threads 2 --engine llama.cpp

Base: Gemma 3 270M; expanded: the same with 6,000 Korean pieces (`expanded.py`; the first run makes it and the GGUF
files, a few minutes that are not counted). Both are up at once, each in a process of its own, and are asked in turn,
so that a busy machine is as busy for one as for the other. vLLM's are up one after the other: on a CPU it keeps most of
the memory that is free.

What is written is not left to the models: an untrained one writes noise, and noise of any length. Each reads a passage
of held-out prose and then writes as many tokens as the next one costs the base, no more and no fewer (`ignore_eos`). A
token takes the same time whatever it spells, so characters/s of given prose are tokens/s times the characters that a
token of this model spells in all of the held-out prose. `free` is the other figure, 64 tokens written as the models
like, for the record only.

    tokens/s        written after the first one; the median over passages
    characters/s    of held-out prose, at this speed
    per CPU-second  the same by the processor time that the server took for it: on a busy machine, and with one thread,
                    nearer to what an idle one gives than the clock is
    first token     seconds until it comes, the passage before having been read
    memory          peak of the server's process and its children, GB
    bound           tokens/s at which memory is read as fast as numpy copies it (bytes read and bytes written are
                    counted): all weights are read for each token, an input embedding of its own excepted

vLLM is measured where $VOCABGRAFT_VLLM or PATH has it. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from bases import gemma, say
from expanded import expanded, korean, source

from vocabgraft.deployment.client import Client
from vocabgraft.deployment.door import COMPLETE
from vocabgraft.machine import cache_folder
from vocabgraft.tokenizer.measure import encode, load_tokenizer

GGUF = ("f16", "q8_0", "q4_k_m")
FREE_TOKENS = 64
LETTERS, QUICK_LETTERS = 300, 100
ROUNDS, QUICK_ROUNDS = 3, 1


@dataclass(frozen=True)
class Format:
    """An engine and how the weights lie in it."""

    engine: str
    name: str

    def model(self, folder: Path) -> Path:
        """The file or folder to serve; a GGUF file is made when it is not there."""
        if self.engine != "llama.cpp":
            return folder
        from vocabgraft.deployment.gguf_export import export_gguf

        out = cache_folder() / "serving" / f"{folder.name}-{self.name}.gguf"
        if not out.is_file():
            say(f"writing {out.name}")
            out.parent.mkdir(exist_ok=True)
            export_gguf(folder, out, quantization=self.name)
        return out

    @property
    def dtype(self) -> str:
        return "float32" if self.name == "f32" else "bfloat16"

    def bytes_per_token(self, model: Path) -> int:
        """Weights read for one token."""
        if self.engine == "llama.cpp":
            from vocabgraft.models.gguf_file import open_gguf

            sizes = {t.name: int(t.n_bytes) for t in open_gguf(model).tensors}
            return sum(sizes.values()) - (sizes["token_embd.weight"] if "output.weight" in sizes else 0)
        from safetensors import safe_open

        with safe_open(model / "model.safetensors", "pt") as file:
            count = sum(_product(file.get_slice(n).get_shape()) for n in file.keys())  # noqa: SIM118 — no mapping
            untied = [n for n in file.keys() if n.endswith("lm_head.weight")]  # noqa: SIM118
            if untied:
                count -= _product(file.get_slice(untied[0]).get_shape())
        return count * (4 if self.name == "f32" else 2)


def _product(shape: list[int]) -> int:
    found = 1
    for n in shape:
        found *= n
    return found


def formats(engines: list[str], quick: bool) -> list[Format]:
    """What is measured; vLLM only where it is."""
    found = [Format("llama.cpp", name) for name in GGUF]
    found += [Format("transformers", name) for name in (("f32",) if quick else ("bf16", "f32"))]
    if shutil.which(os.environ.get("VOCABGRAFT_VLLM", "vllm")):
        found.append(Format("vllm", "bf16"))
    else:
        say("vllm: not here, not measured")
    return [f for f in found if f.engine in engines]


def bandwidth(rounds: int = 8) -> float:
    """Bytes that numpy reads and writes in a processor second when it copies 256 MB; the best of some rounds."""
    import numpy as np

    here, there = np.ones(1 << 25), np.zeros(1 << 25)
    best = 0.0
    for _ in range(rounds):
        started = time.process_time()  # by the clock, what else runs here would be counted
        np.copyto(there, here)
        best = max(best, 2 * here.nbytes / (time.process_time() - started))
    return best


class NotUp(Exception):
    """A server that did not come up; the other rows are measured all the same."""


@contextmanager
def served(form: Format, model: Path, threads: int) -> Iterator[tuple[Client, int]]:
    """A server in a process of its own, and the id of the process."""
    command = [sys.executable, __file__, "--serve", form.engine, str(model), form.dtype, str(threads)]
    ours = ",".join(map(str, sorted(os.sched_getaffinity(0))[:threads]))  # vLLM binds its threads, and to all cores
    environment = os.environ | {"OMP_NUM_THREADS": str(threads), "VLLM_CPU_OMP_THREADS_BIND": ours}
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            assert process.stdout is not None
            told = process.stdout.readline()
            if not told:
                raise NotUp(f"{form.engine} {form.name}: the server did not come up")
            address = json.loads(told)
            yield Client(address["url"], address["key"], form.engine), process.pid
        finally:
            assert process.stdin is not None
            process.stdin.close()


def serve(engine: Any, model: Path, dtype: str, threads: int) -> None:
    """What the process of a server does, until its standard input ends."""
    from vocabgraft.deployment.engines import open_server
    from vocabgraft.deployment.serve import new_key

    if engine == "transformers":
        import torch

        torch.set_num_threads(threads)
    with open_server(engine, model, key=new_key(), threads=threads, context=2048, dtype=dtype) as server:
        print(json.dumps({"url": server.url, "key": server.key}), flush=True)
        sys.stdin.read()


def written(server: Client, pid: int, prompt: str, tokens: int) -> dict[str, float]:
    """Seconds until the first of `tokens` tokens after `prompt`, and for each other one, by clock and processor."""
    started, first, cpu = time.perf_counter(), 0.0, 0.0
    body = {"prompt": prompt, "max_tokens": tokens, "temperature": 0, "ignore_eos": True}
    if server.engine == "llama.cpp":
        body["cache_prompt"] = False  # what was read before must not shorten the wait
    for event in server.stream(COMPLETE, body | {"stream_options": {"include_usage": True}}):
        if not first and event.get("choices"):
            first, cpu = time.perf_counter() - started, cpu_seconds(pid)
        if usage := event.get("usage"):
            assert usage["completion_tokens"] == tokens, usage
    others = max(tokens - 1, 1)
    each = (time.perf_counter() - started - first) / others
    return {"first": first, "each": each, "cpu_each": (cpu_seconds(pid) - cpu) / others}


def cpu_seconds(pid: int) -> float:
    """Processor time of a process and all below it, to a hundredth of a second."""
    fields = Path(f"/proc/{pid}/stat").read_text("utf-8").rpartition(")")[2].split()
    own = (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    return own + sum(map(cpu_seconds, children(pid)))


def free(server: Client, prompt: str) -> float:
    """Characters a second of what a model writes of itself."""
    reply = server.complete(prompt, max_tokens=FREE_TOKENS)
    return len(reply["text"]) / reply["seconds"]


def peak_gb(pid: int) -> float:
    """Peak resident memory of a process and all below it, GB of 2^30 bytes."""
    status = Path(f"/proc/{pid}/status").read_text("utf-8")
    own = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) / 2**20
    return own + sum(map(peak_gb, children(pid)))


def children(pid: int) -> list[int]:
    """Processes that a process started."""
    return [int(c) for c in Path(f"/proc/{pid}/task/{pid}/children").read_text("utf-8").split()]


def figures(seen: list[dict[str, float]], spelt: float) -> dict[str, float]:
    """Speeds of one model. spelt: characters of prose that one of its tokens spells."""
    speed, cpu = (1 / statistics.median(f[key] for f in seen) for key in ("each", "cpu_each"))
    return {
        "tokens_s": speed,
        "characters_s": speed * spelt,
        "tokens_cpu_s": cpu,
        "characters_cpu_s": cpu * spelt,
        "first_token_s": statistics.median(f["first"] for f in seen),
    }


def measure(
    form: Format, folders: dict[str, Path], passages: list[str], spelt: dict[str, float], threads: int
) -> dict[str, Any]:
    """One row. spelt: characters of prose that a token of each model spells."""
    models = {name: form.model(folder) for name, folder in folders.items()}
    seen: dict[str, list[dict[str, float]]] = {name: [] for name in models}
    row: dict[str, Any] = {"engine": form.engine, "format": form.name}
    for names in [[n] for n in models] if form.engine == "vllm" else [list(models)]:
        with ExitStack() as stack:
            servers = {n: stack.enter_context(served(form, models[n], threads)) for n in names}
            for server, _ in servers.values():
                server.complete(passages[0], max_tokens=2)  # the first request pays for what is only made once
            for before, passage in pairwise(passages):
                tokens = count(folders["base"], [passage])
                for name, (server, pid) in servers.items():
                    seen[name].append(written(server, pid, before, tokens))
            for name, (server, pid) in servers.items():
                row[name] = figures(seen[name], spelt[name]) | {
                    "free_characters_s": free(server, passages[0]),
                    "memory_gb": peak_gb(pid),
                    "gb_per_token": form.bytes_per_token(models[name]) / 1e9,
                }
    for key in ("characters_s", "characters_cpu_s"):
        row[f"{key}_gain"] = row["expanded"][key] / row["base"][key]
    return row


def count(folder: Path, texts: list[str]) -> int:
    """Tokens that texts cost."""
    return sum(map(len, encode(load_tokenizer(folder), texts)))


def cut(texts: list[str], letters: int, most: int) -> list[str]:
    """Passages of running prose: from the middle of long texts, whole words, mostly Hangul."""
    found = []
    for text in texts:
        middle = " ".join(text[len(text) // 2 :].split())
        passage = middle[middle.find(" ") + 1 :][:letters].rpartition(" ")[0]
        if sum("가" <= c <= "힣" for c in passage) > 0.6 * letters:
            found.append(passage)
        if len(found) == most:
            break
    return found


def table(rows: list[dict[str, Any]], limit: float) -> Iterator[str]:
    """One line per engine and format: base > expanded."""
    head = ("tokens/s", "bound", "characters/s", "gain", "per CPU-second", "gain", "first token", "memory GB", "free")
    yield f"{'':20}" + "".join(f"{h:>16}" for h in head)
    for row in rows:
        base, new = row["base"], row["expanded"]
        cells = (
            f"{base['tokens_s']:.1f} > {new['tokens_s']:.1f}",
            f"{limit / base['gb_per_token'] / 1e9:.1f}",
            f"{base['characters_s']:.1f} > {new['characters_s']:.1f}",
            f"{row['characters_s_gain']:.2f}",
            f"{base['characters_cpu_s']:.1f} > {new['characters_cpu_s']:.1f}",
            f"{row['characters_cpu_s_gain']:.2f}",
            f"{base['first_token_s']:.2f} > {new['first_token_s']:.2f}",
            f"{base['memory_gb']:.2f} > {new['memory_gb']:.2f}",
            f"{base['free_characters_s']:.1f} > {new['free_characters_s']:.1f}",
        )
        yield f"{row['engine']:13}{row['format']:7}" + "".join(f"{c:>16}" for c in cells)


def rounded(value: Any) -> Any:
    """Three digits after the point are more than was measured."""
    if isinstance(value, dict):
        return {k: rounded(v) for k, v in value.items()}
    return round(value, 3) if isinstance(value, float) else value


def main() -> None:
    """Measure, print a table, and JSON as the last line."""
    if sys.argv[1:2] == ["--serve"]:
        serve(sys.argv[2], Path(sys.argv[3]), sys.argv[4], int(sys.argv[5]))
        return
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one short passage; at most 3 minutes")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--engine", action="append", help="llama.cpp, transformers or vllm; may be repeated")
    arguments = parser.parse_args()
    texts, held = korean(source())
    base = gemma()
    folders = {"base": base, "expanded": expanded(base, Path(source()).name.partition(".")[0], texts)}
    letters, rounds = (QUICK_LETTERS, QUICK_ROUNDS) if arguments.quick else (LETTERS, ROUNDS)
    passages = cut(held, letters, rounds + 1)
    spelt = {name: sum(map(len, held)) / count(folder, held) for name, folder in folders.items()}
    limit = bandwidth()
    rows, failed = [], []
    for form in formats(arguments.engine or ["llama.cpp", "transformers", "vllm"], arguments.quick):
        try:
            rows.append(measure(form, folders, passages, spelt, arguments.threads))
        except NotUp as e:
            failed.append(str(e))
            say(str(e))
            continue
        print("\n".join(table(rows[-1:], limit)), file=sys.stderr)
    print("\n".join(table(rows, limit)))
    told = {
        "text": source(),
        "held_out_characters": sum(map(len, held)),
        "characters_per_token": spelt,
        "passages": rounds,
        "bandwidth_gb_s": limit / 1e9,
        "threads": arguments.threads,
        "rows": rows,
        "not_up": failed,
    }
    print(json.dumps(rounded(told), ensure_ascii=False))


if __name__ == "__main__":
    main()
