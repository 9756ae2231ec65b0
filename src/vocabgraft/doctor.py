"""Can this computer do the job? One finding a line, each with the command that mends it. Imports no heavy package.

Versions are read from installed metadata and compared with the ranges this package itself declares, so there is
one list (pyproject.toml) and no second one here. Nothing is downloaded and no secret is read: of a Hugging Face
token only the presence is looked at.
"""

from __future__ import annotations

import importlib.metadata as metadata
import locale
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from packaging.requirements import Requirement

from vocabgraft.finding import Finding
from vocabgraft.machine import cache_folder

EXTRAS = {
    "train": "every run trains",
    "demo": "the demo's base model",
    "serve": "step 62-serve",
    "hub": "data sets of the Hugging Face hub",
}
"""Extra -> what is lost without it; `train` is the one no run can do without."""
MINIMUM_PYTHON = (3, 11)
DEMO_MEMORY_GB = 6.0
EASY_MEMORY_GB = 7.5  # with room for a checkpoint of all rows; what a machine sold as 8 GB has
RUN_DISK_GB = 8.0
CACHE_DISK_GB = 2.0
_GIB = 2**30
_BF16_FLAGS = {"avx512_bf16", "amx_bf16", "bf16"}  # x86: the first two; Arm: the last
_GATED = "MedGemma is gated: accept its terms on https://huggingface.co/google/medgemma-4b-it, then 'hf auth login'"


def examine(folder: Path) -> list[Finding]:
    """Look at this computer as the place of runs below `folder` (which need not exist yet)."""
    return [
        _python(),
        *_packages(),
        _memory(),
        _disk("disk for runs", folder, RUN_DISK_GB, "choose another disk with --folder"),
        _disk("disk for the cache", cache_folder(), CACHE_DISK_GB, "choose another place with XDG_CACHE_HOME"),
        _writable("write to the run folder", folder, "choose another folder with --folder"),
        _writable("write to the cache", cache_folder(), "choose another place with XDG_CACHE_HOME"),
        _bf16(),
        _gpu(),
        _utf8(),
        _token(),
    ]


def _python() -> Finding:
    found = platform.python_version()
    if sys.version_info[:2] >= MINIMUM_PYTHON:
        return Finding("Python", "ok", found)
    return Finding("Python", "fail", found, "install Python 3.11 or newer")


def _packages() -> list[Finding]:
    """One finding for each package of the extras, by the ranges in our own metadata."""
    try:
        declared = metadata.requires("vocabgraft") or []
    except metadata.PackageNotFoundError:
        return [Finding("vocabgraft", "fail", "not installed", "install it: pip install -e .")]
    found = []
    for requirement in sorted(map(Requirement, declared), key=lambda r: r.name):
        extra = next((e for e in EXTRAS if requirement.marker and requirement.marker.evaluate({"extra": e})), None)
        plain = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
        if extra and not plain:
            found.append(_package(requirement, extra))
    return found


def _package(requirement: Requirement, extra: str) -> Finding:
    wanted = f"{requirement.name}{requirement.specifier}"
    try:
        version = metadata.version(requirement.name)
    except metadata.PackageNotFoundError:
        fix = f"pip install 'vocabgraft[{extra}]' ({EXTRAS[extra]})"
        return Finding(requirement.name, "fail" if extra == "train" else "warn", "not installed", fix)
    if requirement.specifier.contains(version, prereleases=True):
        return Finding(requirement.name, "ok", version)
    return Finding(requirement.name, "warn", f"{version}, tested is {requirement.specifier}", f"pip install '{wanted}'")


def _memory() -> Finding:
    gb = memory_gb()
    if gb >= EASY_MEMORY_GB:
        return Finding("memory", "ok", f"{gb:.1f} GB")
    if gb >= DEMO_MEMORY_GB:
        return Finding("memory", "warn", f"{gb:.1f} GB", "just enough for the 270M demo: close other programs")
    return Finding(
        "memory",
        "fail",
        f"{gb:.1f} GB",
        f"the 270M demo needs {DEMO_MEMORY_GB:.0f} GB; use a bigger machine, or try 'vocabgraft run tiny-cpu'",
    )


def memory_gb() -> float:
    """Memory of this computer, or of the container when that is less, in GB (2^30 bytes)."""
    total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    try:
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text("utf-8"))
    except (OSError, ValueError):  # no cgroup, or "max"
        limit = total
    return min(total, limit) / _GIB


def _disk(name: str, folder: Path, needed: float, otherwise: str) -> Finding:
    place = _existing(folder)
    free = shutil.disk_usage(place).free / _GIB
    if free >= needed:
        return Finding(name, "ok", f"{free:.1f} GB free at {place}")
    return Finding(name, "fail", f"{free:.1f} GB free at {place}", f"free some space: {needed:.0f} GB; or {otherwise}")


def _writable(name: str, folder: Path, otherwise: str) -> Finding:
    place = _existing(folder)
    try:
        with tempfile.TemporaryFile(dir=place):
            return Finding(name, "ok", str(folder))
    except OSError as e:
        return Finding(name, "fail", f"{place}: {e.strerror or e}", otherwise)


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    while not folder.is_dir():
        folder = folder.parent
    return folder


def _bf16() -> Finding:
    flags = cpu_flags()
    if not flags:
        return Finding("CPU bf16", "ok", "not known on this system")
    native = sorted(flags & _BF16_FLAGS)
    if native:
        return Finding("CPU bf16", "ok", ", ".join(native))
    return Finding("CPU bf16", "warn", "no native bf16", "training on this CPU works but is about 2 to 4 times slower")


def cpu_flags() -> set[str]:
    """Instruction set flags of the first processor; empty where /proc/cpuinfo is not to be had."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return set()
    for line in lines:
        key, _, value = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return set(value.split())
    return set()


def _gpu() -> Finding:
    if shutil.which("nvidia-smi") is None:
        return Finding("GPU", "ok", "CPU only: the demo runs, 4B does not")
    command = ["nvidia-smi", "--query-gpu=name,memory.total", "--format=csv,noheader,nounits"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired) as e:
        return Finding("GPU", "warn", f"nvidia-smi does not answer ({type(e).__name__})", "check the NVIDIA driver")
    rows = [[x.strip() for x in line.split(",")] for line in done.stdout.splitlines() if "," in line]
    if done.returncode != 0 or not rows:
        said = " ".join((done.stderr or done.stdout).split())[:120]
        return Finding(
            "GPU", "warn", f"nvidia-smi fails: {said}", "check the NVIDIA driver; without it the CPU is used"
        )
    found = "; ".join(f"{name}, {_gpu_memory(mib)}" for name, mib in rows)
    if "+cpu" in _version("torch"):
        return Finding("GPU", "warn", f"{found}; torch is built for CPU only", "pip install torch from the CUDA index")
    return Finding("GPU", "ok", found)


def _gpu_memory(mib: str) -> str:
    # Some devices share the computer's memory and answer '[N/A]'.
    return f"{int(mib) / 1024:.0f} GB" if mib.isdigit() else "memory not stated"


def _version(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return ""


def _utf8() -> Finding:
    output = getattr(sys.stdout, "encoding", None) or "none"
    found = {
        "text files": locale.getpreferredencoding(False),
        "output": output,
        "file names": sys.getfilesystemencoding(),
    }
    wrong = [f"{what} {name}" for what, name in found.items() if name.lower().replace("-", "") != "utf8"]
    if not wrong:
        return Finding("UTF-8", "ok", "UTF-8 mode" if sys.flags.utf8_mode else "UTF-8 locale")
    return Finding("UTF-8", "warn", ", ".join(wrong), "export PYTHONUTF8=1 (or LANG=C.UTF-8), else Hangul prints as ?")


def _token() -> Finding:
    home = Path(os.environ.get("HF_HOME") or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache") / "huggingface")
    file = Path(os.environ.get("HF_TOKEN_PATH") or home / "token").expanduser()
    named = [name for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN") if os.environ.get(name)]
    where = named[0] if named else str(file) if file.is_file() else ""
    if where:
        return Finding("Hugging Face token", "ok", f"present ({where}); not read", _GATED)
    return Finding("Hugging Face token", "ok", "none; the demo needs none", _GATED)
