"""Talking to the model of a run: chat, side by side with its base, and a server that stops when told to."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from vocabgraft import pipeline
from vocabgraft.deployment.client import Client
from vocabgraft.machine import detect
from vocabgraft.pipeline import execute
from vocabgraft.recipe import load_recipe
from vocabgraft.run import Run
from vocabgraft.steps.context import Context, Silent, StepResult

pytest.importorskip("xllamacpp")


@pytest.fixture(scope="module")
def run(tied_world, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A run of which only the files that are talked to are real: the base, and as its result a model of other seeds."""
    from vocabgraft.deployment.quantize import quantize
    from vocabgraft.models.random_gemma3 import write_random_gemma3

    def work(context: Context) -> StepResult:
        if context.key == "01-sources":
            (context.out / "base.json").write_text(json.dumps({"folder": str(tied_world.base)}), "utf-8")
        if context.key == "61-quantize":
            model = context.out / "model"
            write_random_gemma3(model, [*tied_world.english, *tied_world.korean[::3]], seed=7)
            quantize(model, context.out / "model-q4_1.gguf", "q4_1")
        return StepResult({})

    double = types.ModuleType("vocabgraft.steps.talk_double")
    double.work = work
    folder = tmp_path_factory.mktemp("runs") / "talk"
    recipe = load_recipe("tiny-cpu")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, double.__name__, double)
        patch.setattr(pipeline, "STEPS", tuple(replace(s, run="talk_double:work") for s in pipeline.STEPS))
        execute(Run.create(folder, recipe, ""), detect(folder.parent), reporter=Silent())
    yield folder
    shutil.rmtree(folder)


Say = Callable[..., tuple[int, str, str]]


@pytest.fixture
def say(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Iterator[Say]:
    """The command line in this process: exit code, standard output, standard error."""
    from vocabgraft import cli

    handler = signal.getsignal(signal.SIGTERM)
    monkeypatch.setenv("COLUMNS", "120")

    def call(*words: str | Path) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["vocabgraft", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        return int(ended.value.code or 0), *capfd.readouterr()

    yield call
    signal.signal(signal.SIGTERM, handler)


@pytest.mark.slow
@pytest.mark.parametrize("engine", ["llama.cpp", "transformers"])
def test_chat_answers_with_either_engine(run: Path, engine: str, say: Say) -> None:
    _, out, _ = say("chat", run, "--ask", "왜?", "--engine", engine, "--max-tokens", "6", "--json")
    found = json.loads(out)
    assert found["question"] == "왜?"
    assert 1 <= found["tokens"] <= 6
    assert "".join(found["chips"]) == found["text"]


@pytest.mark.slow
def test_base_and_adapted_answer_side_by_side(run: Path, say: Say) -> None:
    question = ("chat", run, "--ask", "고혈압이란?", "--compare", "--max-tokens", "12")
    _, out, err = say(*question, "--json")
    found = json.loads(out)
    assert found["base"]["text"] != found["adapted"]["text"], "two models were asked"
    for side in ("base", "adapted"):
        assert {"tokens", "characters", "seconds", "chips"} <= set(found[side])
    assert "once" in err
    (made,) = (run / "compare").iterdir()
    stamp = made.stat().st_mtime_ns
    _, out, err = say(*question)
    assert made.stat().st_mtime_ns == stamp
    assert "once" not in err
    assert "│" in out
    assert "characters/s" in out


@pytest.mark.slow
def test_serve_tells_where_it_is_answers_and_stops(run: Path) -> None:
    program = [sys.executable, "-m", "vocabgraft", "serve", str(run), "--port", "0", "--json"]
    environment = os.environ | {"VOCABGRAFT_API_KEY": "my-secret"}
    server = subprocess.Popen(program, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    try:
        told = ""
        while not told.endswith("}\n"):
            line = server.stdout.readline()
            assert line, server.stderr.read()
            told += line
        shown = json.loads(told)
        assert "my-secret" not in told
        client = Client(shown["url"].removesuffix("/v1"), "my-secret", shown["engine"])
        assert client.healthy()
        assert client.model() == shown["model"] == "model-q4_1"
        assert set(client.refuses_without_key().values()) == {401}
        assert client.chat([{"role": "user", "content": "왜?"}], max_tokens=3)["tokens"] <= 3
    finally:
        server.send_signal(signal.SIGTERM)
        _, err = server.communicate(timeout=60)
    assert server.returncode == 143
    assert "Traceback" not in err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["chat", "--engine", "llamacpp"], "there are llama.cpp, transformers, vllm"),
        (["serve", "--engine", "vlm"], "there are llama.cpp, transformers, vllm"),
        (["chat", "--engine", "vllm", "--compare"], "use llama.cpp"),
    ],
)
def test_what_cannot_be_had_is_said(run: Path, words: list[str], told: str, say: Say) -> None:
    code, out, err = say(words[0], run, *words[1:])
    assert (code, out) == (2, "")
    assert told in err


def test_what_a_model_writes_does_not_steer_the_terminal() -> None:
    from vocabgraft.cli_talk import _chips
    from vocabgraft.deployment.comparison import Side

    side = Side("base", "", "", 1, 1, 1.0, ("a\x1b[2J", "[red]b", "\u202e", " c"))
    assert _chips(side).plain == "a·[2J│[red]b│·│·c"
