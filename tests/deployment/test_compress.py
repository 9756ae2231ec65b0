"""What does not fit is refused at once; whatever the compressor's process says or dies of becomes one sentence."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from vocabgraft.deployment.compress import check_fits, compress
from vocabgraft.deployment.compressor_worker import keep_what_belongs
from vocabgraft.errors import MachineError, ModelError

Wide = Callable[[bool], Path]


@pytest.fixture
def process(tmp_path: Path) -> Callable[[str], Path]:
    """An interpreter that does what a shell script says instead of running the worker; $3 is the job."""

    def write(script: str) -> Path:
        path = tmp_path / "python"
        path.write_text(f"#!/bin/sh\n{script}\n", "utf-8")
        path.chmod(0o755)
        return path

    return write


def run(wide: Wide, tmp_path: Path, python: Path, **more: object) -> dict[str, object]:
    return compress(wide(True), tmp_path / "out", "awq", python=python, calibration=[[2, 5, 6]], **more)


def left(tmp_path: Path) -> set[str]:
    return {p.name for p in tmp_path.iterdir()} - {"python", "seen"}


def test_the_job_is_told_and_news_and_result_come_back(wide: Wide, process: Callable, tmp_path: Path) -> None:
    seen, said = tmp_path / "seen", []
    lines = 'echo noise; echo \'{"say": "1 layers done"}\'; echo \'{"result": {"bytes": 7}}\''
    python = process(f'cp "$3" {seen}; cat "$(dirname "$3")/calibration.jsonl" >> {seen}; {lines}')
    assert run(wide, tmp_path, python, dtype="float32", say=said.append) == {"bytes": 7}
    assert said == ["1 layers done"]
    job, ids = seen.read_text("utf-8").replace("}", "}\n", 1).splitlines()
    assert json.loads(ids) == [2, 5, 6]
    found = json.loads(job)
    assert (found["model"], found["out"]) == (str(wide(True)), str(tmp_path / "out"))
    assert (found["method"], found["dtype"]) == ("awq", "float32")
    assert left(tmp_path) == set()


def test_the_process_is_offline_and_sees_none_of_our_packages(
    wide: Wide, process: Callable, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere")
    python = process(f'env > {tmp_path}/seen; echo "$1" >> {tmp_path}/seen; echo \'{{"result": {{}}}}\'')
    run(wide, tmp_path, python)
    seen = (tmp_path / "seen").read_text("utf-8").splitlines()
    assert {"HF_HUB_OFFLINE=1", "HF_DATASETS_OFFLINE=1", "-I"} <= set(seen)
    assert "PYTHONPATH=/somewhere" not in seen


@pytest.mark.parametrize(
    ("script", "error", "message"),
    [
        (
            'echo \'{"error": "ValueError: no such layer"}\'; exit 1',
            ModelError,
            r"failed \(ValueError: no such layer\)",
        ),
        ("echo broken pipe of snakes >&2; exit 1", ModelError, r"failed \(broken pipe of snakes\)"),
        ("kill -9 $$", MachineError, r"killed \(signal 9\).*deploy\.compress\.samples"),
        ('echo \'{"error": "OSError: No space left on device"}\'; exit 1', MachineError, "too little disk or memory"),
        ("echo torch.OutOfMemoryError: CUDA out of memory >&2; exit 1", MachineError, "too little disk or memory"),
        ("exit 0", ModelError, r"the compressor failed \(without a word\)"),
    ],
)
def test_a_process_that_ends_badly_is_one_sentence_and_leaves_nothing(
    wide: Wide, process: Callable, tmp_path: Path, script: str, error: type[Exception], message: str
) -> None:
    python = process(f"mkdir {tmp_path}/out.partial; touch {tmp_path}/out.partial/model.safetensors; {script}")
    with pytest.raises(error, match=message) as e:
        run(wide, tmp_path, python)
    assert "\n" not in str(e.value)
    assert left(tmp_path) == set()


def test_an_interpreter_that_is_gone_is_said(wide: Wide, tmp_path: Path) -> None:
    with pytest.raises(MachineError, match=r"nowhere/python: cannot be run"):
        run(wide, tmp_path, Path("/nowhere/python"))


def test_news_that_cannot_be_told_end_the_process(wide: Wide, process: Callable, tmp_path: Path) -> None:
    def interrupted(_: str) -> None:
        raise KeyboardInterrupt

    python = process(f'echo $$ > {tmp_path}/seen; echo \'{{"say": "x"}}\'; exec sleep 600')
    with pytest.raises(KeyboardInterrupt):
        run(wide, tmp_path, python, say=interrupted)
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "seen").read_text()), 0)


def test_methods_that_read_text_are_not_run_without(wide: Wide, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="gptq: no calibration text"):
        compress(wide(True), tmp_path / "out", "gptq", python=Path("/nowhere"))


def test_layers_that_do_not_divide_into_groups_are_refused(tied_folder: Path, wide: Wide) -> None:
    check_fits(wide(False))
    with pytest.raises(
        ModelError, match=r"groups of 128 columns: model\.layers\.0\.\S+ has 64 columns; ship it as GGUF"
    ):
        check_fits(tied_folder)


def test_a_damaged_model_is_refused(wide: Wide, tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="a Hugging Face model folder is needed"):
        check_fits(tmp_path)
    for file in wide(True).iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    with (tmp_path / "model.safetensors").open("r+b") as f:
        f.truncate(1000)
    with pytest.raises(ModelError, match=r"model\.safetensors"):
        check_fits(tmp_path)


def test_nothing_but_weights_configuration_and_the_sources_own_files_stay(wide: Wide, tmp_path: Path) -> None:
    written = ("model-00001-of-00001.safetensors", "model.safetensors.index.json", "config.json")
    for name in (*written, "recipe.yaml", "tokenizer.json", "generation_config.json", "training.bin"):
        (tmp_path / name).write_text("written here", "utf-8")
    keep_what_belongs(wide(True), tmp_path)
    source = {p.name for p in wide(True).iterdir()}
    assert {p.name for p in tmp_path.iterdir()} == (source - {"model.safetensors"}) | set(written)
    assert "tokenizer.model" in source
    for name in source - {"model.safetensors", "config.json"}:
        assert (tmp_path / name).read_bytes() == (wide(True) / name).read_bytes()
    assert (tmp_path / "config.json").read_text("utf-8") == "written here"
    assert (tmp_path / "model-00001-of-00001.safetensors").stat().st_mode & 0o777 == 0o644
