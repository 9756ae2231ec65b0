"""The command line: one JSON value or plain text, one sentence and exit code 2 for what a person can fix."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import types
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest
import typer

from vocabgraft import cli, pipeline
from vocabgraft.recipe import shipped_recipes
from vocabgraft.steps.context import Context, StepResult

SURFACE = {
    "recipes": "--json",
    "copy": "--json RECIPE TO",
    "check": "--budget --json --set RECIPE",
    "plan": "--budget --folder --gpu --json --set RECIPE",
    "run": "--budget --folder --from --json --micro-batch --set --until RECIPE",
    "status": "--json RUN",
    "show": "--json RUN STEP",
    "report": "--json --out RUN",
    "chat": "--ask --compare --engine --json --max-tokens RUN",
    "bakeoff": "--json --seeds --start --steps --trained RUN",
    "compare": "--json OTHER RUN",
    "measure": "--json --min-count --pieces --script BASE TEXT",
    "serve": "--engine --json --key --port RUN",
    "merge": "--json ADAPTER BASE OUT",
    "audit": "--gguf --json --out --quick --script --text EXPANDED? MODEL",
    "sources": "--check --json RECIPE?",
    "doctor": "--json",
}


@dataclass(frozen=True)
class Said:
    """What a command answered."""

    code: int
    out: str
    err: str

    @property
    def value(self) -> Any:
        """Standard output as exactly one JSON value, without NaN."""

        def refuse(name: str) -> None:
            raise ValueError(f"{name} is not JSON")

        return json.loads(self.out, parse_constant=refuse)


Call = Callable[..., Said]


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], tmp_path: Path) -> Call:
    """Run the program in this process, in an empty working folder."""
    monkeypatch.chdir(tmp_path)
    handler = signal.getsignal(signal.SIGTERM)

    def run(*words: str | Path) -> Said:
        monkeypatch.setattr(sys, "argv", ["vocabgraft", *map(str, words)])
        capfd.readouterr()
        with pytest.raises(SystemExit) as ended:
            cli.main()
        out, err = capfd.readouterr()
        return Said(int(ended.value.code or 0), out, err)

    yield run
    signal.signal(signal.SIGTERM, handler)


def work(context: Context) -> StepResult:
    """Instead of a real step."""
    (context.out / "out.txt").write_text(context.key, "utf-8")
    return StepResult({"n": 1, "loss": 0.5})


@pytest.fixture
def finished(call: Call, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A finished run of steps that do nothing, in runs/tiny-cpu."""
    double = types.ModuleType("vocabgraft.steps.test_double")
    double.work = work
    monkeypatch.setitem(sys.modules, double.__name__, double)
    steps = tuple(replace(s, run="test_double:work") for s in pipeline.STEPS)
    monkeypatch.setattr(pipeline, "STEPS", steps)
    monkeypatch.setenv("OMP_NUM_THREADS", os.environ.get("OMP_NUM_THREADS", "2"))  # the command sets it
    assert call("run", "tiny-cpu").code == 0
    return tmp_path / "runs" / "tiny-cpu"


# -- the surface ----------------------------------------------------------------------------------------------------


def test_commands_and_options_are_exactly_these() -> None:
    group = typer.main.get_command(cli.app)
    found = {}
    for name, command in group.commands.items():
        options = [p.opts[0] for p in command.params if p.param_type_name == "option"]
        words = [(p.metavar or p.name.upper(), p.required) for p in command.params if p.param_type_name == "argument"]
        found[name] = " ".join(sorted([*options, *(w + "?" * (not required) for w, required in words)]))
    assert found == SURFACE


def test_every_command_and_option_says_what_it_is_for() -> None:
    for name, command in typer.main.get_command(cli.app).commands.items():
        assert command.help, name
        for option in command.params:
            assert option.param_type_name != "option" or option.help, (name, option.name)


def test_help_of_every_command_loads_nothing_heavy() -> None:
    program = (
        "import sys, io, contextlib\n"
        "from vocabgraft import cli\n"
        "for words in [[], *([n] for n in sys.argv[1:])]:\n"
        "    sys.argv = ['vocabgraft', *words, '--help']\n"
        "    out = io.StringIO()\n"
        "    try:\n"
        "        with contextlib.redirect_stdout(out):\n"
        "            cli.main()\n"
        "    except SystemExit as e:\n"
        "        assert not e.code, (words, e.code)\n"
        "    assert 'Usage:' in out.getvalue(), words\n"
        # pydantic is not among them: typer loads it itself
        "heavy = {'torch', 'transformers', 'numpy', 'polars', 'tokenizers', 'datasets', 'gguf'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program, *SURFACE], check=True)


def test_the_program_can_be_started_as_a_module() -> None:
    found = subprocess.run([sys.executable, "-m", "vocabgraft", "recipes", "--json"], capture_output=True, check=True)
    assert "tiny-cpu" in {r["name"] for r in json.loads(found.stdout)}


# -- answers --------------------------------------------------------------------------------------------------------


def test_recipes_lists_every_shipped_recipe_with_its_title(call: Call) -> None:
    said = call("recipes", "--json")
    assert (said.code, said.err) == (0, "")
    assert [r["name"] for r in said.value] == sorted(shipped_recipes())
    assert all(r["title"] for r in said.value)
    text = call("recipes").out
    assert all(r["name"] in text and r["title"] in text for r in said.value)


def test_copy_makes_a_recipe_of_ones_own_and_never_overwrites(call: Call, tmp_path: Path) -> None:
    said = call("copy", "tiny-cpu", "mine.toml", "--json")
    assert said.value["to"] == "mine.toml"
    assert call("check", "mine.toml").code == 0
    (tmp_path / "mine.toml").write_text("precious", "utf-8")
    again = call("copy", "tiny-cpu", "mine.toml")
    assert again == Said(2, "", "vocabgraft: mine.toml exists already; give another name\n")
    assert (tmp_path / "mine.toml").read_text("utf-8") == "precious"


def test_check_prints_the_resolved_recipe(call: Call) -> None:
    said = call("check", "tiny-cpu", "--set", "tokenizer.pieces=210", "--json")
    assert said.value["tokenizer"]["pieces"] == 210
    assert call("check", "tiny-cpu").out == "tiny-cpu: valid (Plumbing on random weights)\n"


def test_plan_says_what_is_to_do_and_what_it_takes_and_writes_nothing(call: Call, tmp_path: Path) -> None:
    said = call("plan", "korean-gemma-270m", "--gpu", "a5000", "--json")
    assert (said.code, said.err) == (0, "")
    assert [s["status"] for s in said.value["steps"]] == ["to do"] * 22
    assert len(said.value["stages"]) == 8
    assert said.value["verdict"]
    assert "34-stage4" in call("plan", "korean-gemma-270m").out
    assert list(tmp_path.iterdir()) == []


def test_plan_names_the_reason_for_what_is_stale(call: Call, finished: Path) -> None:
    rows = call("plan", "tiny-cpu", "--set", "lora.rank=8", "--json").value["steps"]
    assert {r["key"]: r["reason"] for r in rows}["36-stage6"] == "lora.rank was 4, is now 8"


def test_plan_without_counts_of_the_sources_says_nothing_of_them(call: Call, finished: Path) -> None:
    assert call("plan", "tiny-cpu", "--json").value["mix"] == []


def test_run_says_what_it_did_and_then_that_nothing_is_left(call: Call, finished: Path) -> None:
    said = call("run", "tiny-cpu", "--from", "61", "--json")
    assert said.value == {"run": "runs/tiny-cpu", "done": ["61-quantize", "62-serve"]}
    assert call("run", "tiny-cpu", "--json").value["done"] == []
    again = call("run", "tiny-cpu")
    assert "nothing to do" in again.out
    assert again.err == ""


def test_a_budget_of_its_own_gets_a_folder_of_its_own(call: Call, finished: Path) -> None:
    assert call("run", "korean-gemma-270m", "--until", "00", "--json").value["run"] == "runs/korean-gemma-270m"
    said = call("run", "korean-gemma-270m", "--budget", "smoke", "--until", "00", "--json")
    assert said.value["run"] == "runs/korean-gemma-270m-smoke"


def test_status_tells_every_step(call: Call, finished: Path) -> None:
    said = call("status", finished, "--json")
    assert said.value["recipe"] == "tiny-cpu"
    assert [s["status"] for s in said.value["steps"]] == ["done"] * 22
    assert call("status", finished).out.count(" done ") == 22


def test_show_prints_a_manifest(call: Call, finished: Path) -> None:
    said = call("show", finished, "34", "--json")
    assert said.value["step"] == "34-stage4"
    assert said.value["outputs"][0]["path"] == "out.txt"
    text = call("show", finished, "34").out
    assert said.value["outputs"][0]["sha256"][:12] in text
    assert '"loss": 0.5' in text


def test_report_writes_a_page_and_says_where(call: Call, finished: Path, tmp_path: Path) -> None:
    said = call("report", finished, "--json")
    assert said.value["report"] == str(finished / "report.html")
    assert said.value["metrics"]["34-stage4"] == {"n": 1, "loss": 0.5}
    assert call("report", finished, "--out", tmp_path / "r.html").out.endswith(f"{tmp_path / 'r.html'}\n")
    assert (tmp_path / "r.html").read_bytes() == (finished / "report.html").read_bytes()


def test_doctor_prints_one_value_and_fails_only_when_something_is_missing(call: Call) -> None:
    said = call("doctor", "--json")
    assert said.code == (1 if any(f["status"] == "fail" for f in said.value) else 0)
    assert {f["status"] for f in said.value} <= {"ok", "warn", "fail"}


def test_audit_prints_one_value(call: Call, tied_world) -> None:
    said = call("audit", tied_world.base, "--json")
    assert said.code == (1 if any(f["status"] == "fail" for f in said.value["findings"]) else 0)
    assert said.value["findings"]


# -- what a person can fix ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["check", "tiny-cpi"], "did you mean 'tiny-cpu'?"),
        (["run", "nosuch"], "no recipe of this name; shipped are"),
        (["run", "no/such.toml"], "no such file; shipped recipes are"),
        (["copy", "tiny-cpi", "x.toml"], "did you mean 'tiny-cpu'?"),
        (["copy", "tiny-cpu", "no/such/place.toml"], "no such file or folder; check the path"),
        (["check", "tiny-cpu", "--set", "pieces"], "--set pieces: write KEY=VALUE"),
        (["check", "tiny-cpu", "--budget", "dmo"], "did you mean 'demo'?"),
        (["plan", "tiny-cpu", "--gpu", "a600"], "a6000"),
        (["run", "tiny-cpu", "--until", "35-stage4"], "no step '35-stage4'"),
        (["status", "runs/none"], "not a run folder"),
        (["show", "runs/none", "34"], "not a run folder"),
        (["report", "runs/none"], "not a run folder"),
        (["chat", "runs/none"], "not a run folder"),
        (["serve", "runs/none"], "not a run folder"),
        (["audit", "no/such/model"], "no/such/model"),
    ],
)
def test_a_mistake_is_one_message_and_exit_code_2(call: Call, words: list[str], told: str) -> None:
    said = call(*words)
    assert said.code == 2
    assert said.out == ""
    assert said.err.startswith("vocabgraft: ")
    assert told in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize("words", [["frobnicate"], ["run"], ["run", "tiny-cpu", "--colour", "red"], ["plan"]])
def test_a_wrong_word_is_a_usage_message_and_exit_code_2(call: Call, words: list[str]) -> None:
    said = call(*words)
    assert said.code == 2
    assert "Usage:" in said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize("command", ["show", "chat", "serve"])
def test_what_is_not_done_yet_is_said_with_the_way_on(call: Call, finished: Path, command: str) -> None:
    (finished / "61-quantize").rename(finished / "61-quantize.partial")
    said = call(command, finished, *(["61"] if command == "show" else []))
    assert said.code == 2
    assert "61-quantize is not done" in said.err
    assert "vocabgraft " in said.err.removeprefix("vocabgraft: ")


def test_a_quantised_file_that_is_gone_is_said(call: Call, finished: Path) -> None:
    said = call("chat", finished, "--ask", "안녕?")
    assert said.code == 2
    assert "redo it with --from 61-quantize" in said.err


def test_a_traceback_can_be_asked_for(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    from vocabgraft.errors import RecipeError

    monkeypatch.setenv("VOCABGRAFT_DEBUG", "1")
    monkeypatch.setattr(sys, "argv", ["vocabgraft", "check", "nosuch"])
    with pytest.raises(RecipeError):
        cli.main()


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_says_how_to_go_on(tmp_path: Path, number: int, code: int) -> None:
    program = (
        "import signal, time, vocabgraft.pipeline\n"
        "signal.signal(signal.SIGINT, signal.default_int_handler)\n"  # a shell starts its background jobs deaf to it
        "def execute(*a, **k):\n"
        "    print('running', flush=True)\n"
        "    time.sleep(60)\n"
        "vocabgraft.pipeline.execute = execute\n"
        "from vocabgraft.cli import main\n"
        "main()\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", program, "run", "tiny-cpu"],
        cwd=tmp_path,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout.readline() == "running\n"
    process.send_signal(number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err
    assert number != signal.SIGINT or "run the same command again to continue" in err


def test_whatever_a_model_answers_reaches_the_terminal_as_one_harmless_line(capfd: pytest.CaptureFixture[str]) -> None:
    from vocabgraft.console import ConsoleReporter

    ConsoleReporter().say("answered: [/bold] [red]x[/red] [00-x] \\[y]\r\n\x1b[2Jz\u2028가")
    assert capfd.readouterr().err == "  0:00   answered: [/bold] [red]x[/red] [00-x] \\[y]   [2Jz 가\n"


def test_sources_lists_what_is_known_and_what_a_recipe_reads(call: Call, tmp_path: Path) -> None:
    rows = call("sources", "--json").value
    assert {"source:fineweb-2-ko", "source:kormedmcqa-train/doctor"} <= {row["source"] for row in rows}
    said = call("sources", "tiny-cpu", "--check")
    assert said.code == 0
    assert "samples:korean: data.target\n  here: 3 files" in said.out
    assert "licences:\n  Apache-2.0: samples:korean" in said.out


def test_sources_ends_with_2_where_a_source_of_the_recipe_is_missing_or_refused(call: Call, tmp_path: Path) -> None:
    text = shipped_recipes()["tiny-cpu"].read_text("utf-8")
    (tmp_path / "a.toml").write_text(text.replace('"samples:korean"', '"gone.jsonl"'), "utf-8")
    assert call("sources", "a.toml").code == 0
    said = call("sources", "a.toml", "--check")
    assert said.code == 2
    assert "missing: gone.jsonl does not exist" in said.out
    (tmp_path / "b.toml").write_text(text.replace('"samples:korean"', '"source:asan-healthinfo"'), "utf-8")
    said = call("sources", "b.toml", "--json")
    assert said.code == 2
    assert "has no known terms" in said.value[0]["refused"][0]
