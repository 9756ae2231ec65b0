"""Commands that talk: chat with the model of a run, or serve it to others on this machine."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from vocabgraft.cli_answer import Json, answer, emit, show_text
from vocabgraft.errors import MachineError, RunError

if TYPE_CHECKING:
    from rich.text import Text

    from vocabgraft.deployment.comparison import Side
    from vocabgraft.run import Run

RunArg = Annotated[Path, typer.Argument(metavar="RUN", help="A run folder, e.g. runs/korean-gemma-270m.")]
EngineArg = Annotated[str, typer.Option(help="llama.cpp, transformers or vllm.")]
_CONTEXT = 8192  # tokens of a conversation; a model made for fewer takes fewer
_CHIPS = ("white on dark_blue", "white on grey30")


def chat(
    run: RunArg,
    ask: Annotated[str | None, typer.Option(help="Ask one question and stop.")] = None,
    max_tokens: Annotated[int, typer.Option(help="Longest answer, in tokens.")] = 200,
    engine: EngineArg = "llama.cpp",
    compare: Annotated[bool, typer.Option("--compare", help="The base beside it, with the tokens of both.")] = False,
    as_json: Json = False,
) -> None:
    """Talk to the model of a run; with --compare to its base too, side by side."""
    opened, kind = _finished(run), _engine(engine)
    with ExitStack() as stack:
        sides = _compared(opened, kind, stack) if compare else {"adapted": _open(opened, kind, stack)}
        talks: dict[str, list[dict[str, str]]] = {name: [] for name in sides}
        while True:
            try:
                text = ask or input("> ")
            except EOFError:
                return
            if not text.strip():
                continue
            for talk in talks.values():
                talk.append({"role": "user", "content": text})
            found = {name: ask_side(talks[name], max_tokens) for name, ask_side in sides.items()}
            for name, side in found.items():
                talks[name].append({"role": "assistant", "content": side.text})
            _tell(text, found, as_json)
            if ask:
                return


def serve(
    run: RunArg,
    engine: EngineArg = "llama.cpp",
    port: Annotated[int, typer.Option(help="Port on 127.0.0.1.")] = 8080,
    key: Annotated[
        str | None, typer.Option(envvar="VOCABGRAFT_API_KEY", help="API key; made up when not given.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Serve the model of a run: OpenAI-compatible, on this machine only, every route behind a key."""
    from vocabgraft.deployment.engines import open_server
    from vocabgraft.deployment.serve import new_key

    opened, kind, secret = _finished(run), _engine(engine), key or new_key()
    with open_server(kind, _model(opened, kind), key=secret, port=port, **_place()) as server:
        shown = {"url": f"{server.url}/v1", "model": server.model(), "key": secret if key is None else "(yours)"}
        told = f"serving {shown['model']} at {shown['url']}\nkey {shown['key']}\nCtrl-C stops it"
        answer(as_json, shown | {"engine": kind}, told)
        sys.stdout.flush()
        signal.pause()


def _engine(name: str) -> Any:
    from vocabgraft.deployment.engines import ENGINES

    if name not in ENGINES:
        raise MachineError(f"--engine {name}: there are {', '.join(ENGINES)}")
    return name


def _place() -> dict[str, Any]:
    """Where a model runs here, and how much it can read and write at once."""
    from vocabgraft.machine import detect

    machine = detect(Path.cwd())
    return {"threads": machine.threads, "device": machine.device, "context": _CONTEXT}


def _finished(run: Path) -> Run:
    from vocabgraft.run import Run

    opened = Run.open(run)
    if opened.manifest("61-quantize") is None:
        raise RunError(f"{run}: 61-quantize is not done; finish the run first: vocabgraft run {opened.recipe.name}")
    return opened


def _model(run: Run, engine: str) -> Path:
    from vocabgraft.steps.compression import COMPRESSED
    from vocabgraft.steps.deployment import quantised_file

    if engine == "llama.cpp":
        return quantised_file(run.path("61-quantize"))
    compressed = run.path("61-quantize", COMPRESSED)
    return compressed if engine == "vllm" and compressed.is_dir() else run.path("61-quantize", "model")


def _open(run: Run, engine: Any, stack: ExitStack) -> Any:
    return _asker("adapted", engine, _model(run, engine), run.path("61-quantize", "model"), stack)


def _compared(run: Run, engine: Any, stack: ExitStack) -> dict[str, Any]:
    if engine == "vllm":
        raise MachineError("--compare holds two models at once, which vLLM does not share a GPU for; use llama.cpp")
    from vocabgraft.console import ConsoleReporter
    from vocabgraft.steps.context import base_folder
    from vocabgraft.steps.deployment import base_gguf

    base = base_folder(run)
    file = base_gguf(run, say=ConsoleReporter().say) if engine == "llama.cpp" else base
    return {"base": _asker("base", engine, file, base, stack), "adapted": _open(run, engine, stack)}


def _asker(name: str, engine: Any, model: Path, tokenizer: Path, stack: ExitStack) -> Any:
    from vocabgraft.deployment.comparison import ask_side
    from vocabgraft.deployment.engines import open_server
    from vocabgraft.deployment.serve import new_key
    from vocabgraft.tokenizer.measure import load_tokenizer

    server = stack.enter_context(open_server(engine, model, key=new_key(), **_place()))
    return lambda talk, most: ask_side(server, load_tokenizer(tokenizer), name, talk, max_tokens=most)


def _tell(question: str, sides: dict[str, Side], as_json: bool) -> None:
    if as_json:
        told = {name: side.as_json() for name, side in sides.items()}
        emit({"question": question, **(told if len(told) > 1 else told["adapted"])})
    elif len(sides) > 1:
        _show_beside(sides)
    else:
        side = sides["adapted"]
        only = "(it only thought; give it more room: --max-tokens)" if side.reasoning and not side.text.strip() else ""
        show_text(only or _printable(side.text.strip()))


def _show_beside(sides: dict[str, Side]) -> None:
    """Two columns: each answer cut into its tokens, what it cost below."""
    from rich.console import Console
    from rich.table import Table

    table = Table(show_lines=True, expand=True)
    for name in sides:
        table.add_column(name, ratio=1, overflow="fold")
    table.add_row(*(_chips(side) for side in sides.values()))
    table.add_row(
        *(
            f"{s.characters} characters in {len(s.chips)} tokens, {s.seconds:.2f} s "
            f"({s.characters_per_second:.1f} characters/s)" + (", thought first" if s.reasoning else "")
            for s in sides.values()
        )
    )
    Console(highlight=False, width=None if sys.stdout.isatty() else int(os.environ.get("COLUMNS", "100"))).print(table)


def _chips(side: Side) -> Text:
    """Tokens in changing colours, with bars between them for where there are no colours."""
    from rich.text import Text

    text = Text()
    for i, chip in enumerate(side.chips):
        text.append("│" if i else "")
        text.append(_printable(chip).replace(" ", "·"), style=_CHIPS[i % 2])
    return text


def _printable(text: str) -> str:
    """Whatever a model writes must not steer the terminal."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text)
