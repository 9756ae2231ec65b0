"""The environment that llm-compressor runs in: made once from a lock, whole or not at all, in the user's cache.

Every package has its exact version and SHA-256 in `compressor.lock`, but for torch: which build is right (CPU, one of
several CUDA) depends on the machine, so its version alone is fixed here and pip takes it, and the NVIDIA packages that
it names, from wherever this machine's pip is told to look (`--index-url`, `PIP_INDEX_URL`, `pip config`).
"""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

from vocabgraft.durable import alone, fsync_folder
from vocabgraft.errors import MachineError

LOCK = Path(__file__).with_name("compressor.lock")
TORCH = "torch==2.13.0"
_ROOM_GB = 4.0  # 1.5 GB with torch for CPUs (measured); one for CUDA brings its libraries
_LAST_LINES = 3
Say = Callable[[str], None]


def environment_folder(cache: Path, lock: Path = LOCK) -> Path:
    """Where the environment of this lock, this torch and this Python lies, or would."""
    version = f"{sys.version_info.major}.{sys.version_info.minor}"
    name = hashlib.sha256(f"{TORCH} {version}\n".encode() + lock.read_bytes()).hexdigest()[:12]
    return cache / "environments" / f"compressor-{name}"


def compressor_python(cache: Path, say: Say = lambda _: None, *, lock: Path = LOCK) -> Path:
    """The interpreter of the environment, which is made on first use (minutes, more than 1 GB).

    Two processes do not make it twice: the second waits. Raises MachineError, with pip's own last words, when it cannot
    be made; nothing half-made is left under its name.
    """
    folder = environment_folder(cache, lock)
    python = folder / "bin" / "python"
    if python.exists():
        return python
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        waited = "another process makes the environment of llm-compressor; waiting for it"
        with alone(folder.with_name(folder.name + ".lock"), lambda: say(waited)):
            if not python.exists():  # another process may just have made it
                _make(folder, lock, say)
    except OSError as e:
        raise MachineError(
            f"{folder}: cannot be written ({e.strerror or e}); check the folder and the free space"
        ) from e
    return python


def _make(folder: Path, lock: Path, say: Say) -> None:
    free = shutil.disk_usage(folder.parent).free / 2**30
    if free < _ROOM_GB:
        raise MachineError(
            f"{folder.parent}: {free:.1f} GB free; the environment of llm-compressor needs {_ROOM_GB:.0f} GB. "
            "Make room, or put the cache elsewhere with XDG_CACHE_HOME"
        )
    partial = folder.with_name(folder.name + ".partial")
    for old in (partial, folder):  # interrupted; or its Python is gone
        if old.exists():
            shutil.rmtree(old)
    say(f"making the environment of llm-compressor in {folder} (once; minutes, more than 1 GB)")
    try:
        _call([sys.executable, "-m", "venv", partial], "a virtual environment cannot be made")
        pip = [
            partial / "bin" / "python",
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--no-input",
        ]
        locked = ["--require-hashes", "--no-deps", "--only-binary", ":all:", "--requirement", lock]
        _call([*pip, *locked], "llm-compressor cannot be installed")
        say("installing torch for it")
        _call([*pip, TORCH], f"{TORCH} cannot be installed")
        partial.rename(folder)
        fsync_folder(folder.parent)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _call(command: Sequence[str | Path], failure: str) -> None:
    """Run a command of the environment; what went wrong is told by its own last lines."""
    apart = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME", "PIP_REQUIRE_VIRTUALENV")}
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, env=apart, check=False)
    if done.returncode == 0:
        return
    lines = [x.strip() for x in f"{done.stdout}\n{done.stderr}".splitlines() if x.strip() and "WARNING" not in x]
    raise MachineError(
        f"{failure} (exit code {done.returncode}): {' / '.join(lines[-_LAST_LINES:]) or 'no reason given'}. "
        "Check the network and pip's index (pip config list), or compress nothing: deploy.compress.methods = []"
    )
