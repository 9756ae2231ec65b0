"""The house rules that a machine can check (CONTRIBUTING.md): size, names, layers, what must not exist."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SOURCE = ROOT / "src" / "vocabgraft"
FILES = sorted(SOURCE.rglob("*.py"))
NAMES = [f.relative_to(SOURCE).as_posix() for f in FILES]
LIBRARIES = ("corpus", "tokenizer", "embedding", "training", "evaluation", "deployment", "report", "models", "scale")
TOP = ("recipe", "run", "pipeline", "steps", "cli")
Function = ast.FunctionDef | ast.AsyncFunctionDef


@cache
def tree(name: str) -> ast.Module:
    return ast.parse((SOURCE / name).read_text("utf-8"), name)


def imports(name: str) -> Iterator[str]:
    """Every module a file imports, inside functions too, without what only the type checker reads."""
    for node in _running(tree(name)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def _running(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return
    yield node
    for child in ast.iter_child_nodes(node):
        yield from _running(child)


def ours(name: str) -> set[str]:
    """First part of the module below vocabgraft that a file imports: 'recipe', 'steps', …"""
    return {m.split(".")[1] for m in imports(name) if m.startswith("vocabgraft.")}


def functions(name: str) -> Iterator[Function]:
    yield from (n for n in ast.walk(tree(name)) if isinstance(n, Function))


def public(name: str) -> Iterator[ast.ClassDef | Function]:
    """Public functions and classes of a module, and public methods of public classes."""
    for node in tree(name).body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield node
            yield from (n for n in node.body if isinstance(n, Function) and not n.name.startswith("_"))
        elif isinstance(node, Function) and not node.name.startswith("_"):
            yield node


# -- size and names -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
def test_a_file_has_at_most_350_lines(name: str) -> None:
    assert len((SOURCE / name).read_text("utf-8").splitlines()) <= 350


@pytest.mark.parametrize("name", NAMES)
def test_a_function_has_at_most_60_lines(name: str) -> None:
    long = {f.name: f.end_lineno - f.lineno + 1 for f in functions(name) if f.end_lineno - f.lineno + 1 > 60}
    assert long == {}


def test_no_module_is_named_after_nothing() -> None:
    empty = {"utils", "util", "common", "helpers", "helper", "misc", "base", "manager", "core", "tools"}
    assert [n for n in NAMES if empty & set(Path(n).with_suffix("").parts)] == []


@pytest.mark.parametrize("name", NAMES)
def test_a_module_says_what_it_is_for(name: str) -> None:
    assert ast.get_docstring(tree(name))


@pytest.mark.parametrize("name", NAMES)
def test_every_public_function_is_documented_and_annotated(name: str) -> None:
    for node in public(name):
        assert ast.get_docstring(node), f"{name}: {node.name} has no docstring"
        if isinstance(node, Function):
            arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            bare = [a.arg for a in arguments if a.annotation is None and a.arg not in ("self", "cls")]
            assert bare == [], f"{name}: {node.name}"
            assert node.returns is not None, f"{name}: {node.name} says not what it returns"


# -- layers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith(tuple(f"{x}/" for x in LIBRARIES))])
def test_a_library_knows_nothing_of_recipes_runs_and_steps(name: str) -> None:
    assert ours(name) & set(TOP) == set()


@pytest.mark.parametrize("name", [n for n in NAMES if n.startswith("steps/")])
def test_steps_know_nothing_of_what_calls_them(name: str) -> None:
    assert ours(name) & {"pipeline", "cli"} == set()


def test_nothing_but_the_entry_point_imports_the_command_line() -> None:
    assert [n for n in NAMES if "cli" in ours(n)] == ["__main__.py"]


def test_training_never_imports_the_report() -> None:
    assert [n for n in NAMES if n.startswith(("training/", "embedding/", "models/")) and "report" in ours(n)] == []


def test_the_leaves_import_nothing_heavy() -> None:
    program = (
        "import sys\n"
        "import vocabgraft.cli, vocabgraft.recipe, vocabgraft.pipeline, vocabgraft.run, vocabgraft.forecast\n"
        "heavy = {'torch', 'transformers', 'datasets', 'peft', 'bitsandbytes', 'gguf', 'xllamacpp', 'polars'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


# -- what must not exist --------------------------------------------------------------------------------------------


def calls(name: str) -> Iterator[str]:
    """Dotted names of what is called."""
    for node in ast.walk(tree(name)):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func)


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_unpickled_and_no_yaml_is_read(name: str) -> None:
    modules = {m.split(".")[0] for m in imports(name)}
    assert modules & {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve", "marshal", "yaml"} == set()
    assert (
        set(calls(name)) & {"torch.load", "torch.save", "eval", "exec", "os.system", "numpy.load", "np.load"} == set()
    )


@pytest.mark.parametrize("name", NAMES)
def test_no_code_of_a_model_is_trusted(name: str) -> None:
    keywords = [k for n in ast.walk(tree(name)) if isinstance(n, ast.Call) for k in n.keywords]
    assert [k.lineno for k in keywords if k.arg == "trust_remote_code"] == []


@pytest.mark.parametrize("name", NAMES)
def test_nothing_prints(name: str) -> None:
    assert "print" not in set(calls(name))


@pytest.mark.parametrize("name", NAMES)
def test_text_files_are_opened_with_their_encoding(name: str) -> None:
    bare = [
        node.lineno
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr == "write_text"
        and len(node.args) < 2
        and not any(k.arg == "encoding" for k in node.keywords)
    ]
    # /proc takes ASCII whatever the locale.
    assert bare == [] or name == "machine.py"


def test_errors_are_ours() -> None:
    generic = {"Exception", "RuntimeError", "BaseException"}
    raised = [
        f"{name}:{node.lineno}"
        for name in NAMES
        for node in ast.walk(tree(name))
        if isinstance(node, ast.Raise)
        and isinstance(node.exc, ast.Call)
        and isinstance(node.exc.func, ast.Name)
        and node.exc.func.id in generic
    ]
    assert raised == []


def test_the_two_commands_of_the_readme_are_there() -> None:
    readme = (ROOT / "README.md").read_text("utf-8")
    makefile = (ROOT / "Makefile").read_text("utf-8")
    for command in ("demo", "test"):
        assert re.search(rf"^\s*(\$ )?make {command}\b", readme, re.MULTILINE), f"README has no 'make {command}'"
        assert re.search(rf"^{command}:", makefile, re.MULTILINE), f"Makefile has no target {command}"
