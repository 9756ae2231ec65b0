"""The environment is there whole or not at all, made once, and pip's own words say why it could not be made."""

from __future__ import annotations

import hashlib
import re
import shutil
import subprocess
import zipfile
from collections import namedtuple
from pathlib import Path

import pytest

from vocabgraft.deployment import compressor_environment
from vocabgraft.deployment.compressor_environment import LOCK, compressor_python, environment_folder
from vocabgraft.errors import MachineError


def wheel(folder: Path, name: str) -> str:
    """A package of one empty module; its SHA-256."""
    path = folder / f"{name}-1.0-py3-none-any.whl"
    info = f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr(f"{name}.py", "")
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", f"{name}.py,,\n{info}/METADATA,,\n{info}/WHEEL,,\n{info}/RECORD,,\n")
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Two packages in a folder, and a pip that knows of nothing else; the second stands for torch."""
    folder = tmp_path / "wheels"
    folder.mkdir()
    hashed = wheel(folder, "graftedlocked")
    wheel(folder, "graftedtorch")
    (tmp_path / "lock").write_text(f"graftedlocked==1.0 --hash=sha256:{hashed}\n", "utf-8")
    settings = {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(folder), "PIP_CONFIG_FILE": "/dev/null"}
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setattr(compressor_environment, "TORCH", "graftedtorch==1.0")
    return folder


def left(cache: Path) -> list[str]:
    return sorted(p.name for p in (cache / "environments").iterdir() if p.suffix != ".lock")


@pytest.mark.slow
def test_it_is_made_once_in_place_of_one_that_was_interrupted(
    index: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache, lock = tmp_path / "cache", tmp_path / "lock"
    folder = environment_folder(cache, lock)
    (folder.with_name(folder.name + ".partial") / "half").mkdir(parents=True)
    (folder / "bin").mkdir(parents=True)
    (folder / "bin" / "python").symlink_to("/nowhere/python")  # the Python it was made from is gone
    said: list[str] = []
    python = compressor_python(cache, said.append, lock=lock)
    assert left(cache) == [folder.name]
    subprocess.run([python, "-I", "-c", "import graftedlocked, graftedtorch"], check=True)
    assert "once" in said[0]

    def never(*_: object, **__: object) -> None:
        raise AssertionError("made a second time")

    monkeypatch.setattr(subprocess, "run", never)
    assert compressor_python(cache, lock=lock) == python


@pytest.mark.slow
def test_a_package_that_is_not_the_locked_one_is_refused_and_nothing_is_left(index: Path, tmp_path: Path) -> None:
    lock = tmp_path / "lock"
    lock.write_text(f"graftedlocked==1.0 --hash=sha256:{'0' * 64}\n", "utf-8")
    with pytest.raises(MachineError, match=r"llm-compressor cannot be installed \(exit code 1\): .*pip config list"):
        compressor_python(tmp_path / "cache", lock=lock)
    assert left(tmp_path / "cache") == []
    (index / "graftedtorch-1.0-py3-none-any.whl").unlink()
    shutil.copy(LOCK, lock)
    lock.write_text("", "utf-8")
    with pytest.raises(MachineError, match=r"graftedtorch==1\.0 cannot be installed .*No matching distribution"):
        compressor_python(tmp_path / "cache", lock=lock)
    assert left(tmp_path / "cache") == []


def test_too_little_room_is_said_before_anything_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage(10, 9, 1 << 30))
    with pytest.raises(MachineError, match=r"1\.0 GB free; .* needs 4 GB.*XDG_CACHE_HOME"):
        compressor_python(tmp_path)
    assert left(tmp_path) == []


def test_a_cache_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    (tmp_path / "environments").write_text("a file", "utf-8")
    with pytest.raises(MachineError, match="cannot be written"):
        compressor_python(tmp_path)


def test_another_lock_is_another_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "lock").write_text("other==1.0\n", "utf-8")
    names = {environment_folder(tmp_path).name, environment_folder(tmp_path, tmp_path / "lock").name}
    monkeypatch.setattr(compressor_environment, "TORCH", "torch==2.14.0")
    assert len(names | {environment_folder(tmp_path).name}) == 3


def test_every_package_of_the_lock_has_its_version_and_hash_and_torch_is_left_to_pip() -> None:
    entries = re.split(r"^(?=[a-z0-9])", LOCK.read_text("utf-8"), flags=re.MULTILINE)[1:]
    assert len(entries) > 50
    assert all(re.match(r"[a-z0-9._-]+==[\w.]+ ", e) and "--hash=sha256:" in e for e in entries)
    names = {e.split("==")[0] for e in entries}
    assert {"llmcompressor", "transformers", "compressed-tensors"} <= names
    assert not {n for n in names if n in ("torch", "triton") or n.startswith(("nvidia-cu", "cuda-"))}
