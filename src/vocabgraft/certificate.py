"""The certificate of an expanded tokenizer, ours or not: what was proven, on what, and SHA-256 of everything read.

    certify(base, expanded).save(Path("certificate.json"))

Proven against the base: text without the new script keeps every id (all code points, alone and after a space; Python's
library; prose), every new token is a run of base tokens, every new piece can be reached, sentencepiece, tokenizers and
llama.cpp agree, texts come back, specials and chat template are as before, and a rebuild gives the same bytes.
What could not be checked is a warning, never ok. The same files, seed and versions give the same certificate.
"""

from __future__ import annotations

import hashlib
import json
import platform
import sysconfig
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import regex

from vocabgraft import __version__, audit
from vocabgraft.audit_files import Folder, figures_of, template_of
from vocabgraft.console import ConsoleReporter
from vocabgraft.corpus.document import Tally, read_source
from vocabgraft.corpus.script import script_pattern
from vocabgraft.deployment.gguf_tokenizer import read_gguf_tokenizer
from vocabgraft.durable import sha256_file, write_json
from vocabgraft.errors import TokenizerError
from vocabgraft.finding import Finding
from vocabgraft.rebuild import rebuilt
from vocabgraft.run import disk_error
from vocabgraft.tokenizer import properties
from vocabgraft.tokenizer.compare import new_pieces, script_of, text_of
from vocabgraft.tokenizer.engines import Absent, Engine, find_gguf, llama_cpp, sentence_piece
from vocabgraft.tokenizer.fuzz import code_points, fuzz_texts, letters_of
from vocabgraft.tokenizer.sweep import Subject, Sweep, blocks_without
from vocabgraft.tokenizer.vocabulary import read_model

Bar = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]
"""Opens a progress bar (label, total) and gives what advances it; `ConsoleReporter.bar` does."""

SEED = 20261122
_READ = ("tokenizer.json", "tokenizer.model", "tokenizer_config.json", "config.json", "chat_template.jinja")
_READ_TOO = ("added_tokens.json", "expansion.json", "chat_template.json")
_NO_LIBRARY = {"site-packages", "dist-packages", "test", "tests", "idlelib", "lib2to3", "__pycache__"}
_NEVER = regex.compile(r"(?!)")


@dataclass(frozen=True)
class Effort:
    """How much is tried; `code_points` None means all 1,112,064 of them, `library` None all files of Python's."""

    code_points: int | None = None
    library: int | None = None
    fuzz: int = 20_000


FULL = Effort()
QUICK = Effort(code_points=20_000, library=30, fuzz=2_000)


@dataclass(frozen=True)
class Certificate:
    """Findings in the order of the checks, figures, what was read (name -> SHA-256) and under which conditions."""

    findings: tuple[Finding, ...]
    figures: dict[str, Any]
    inputs: dict[str, str]
    conditions: dict[str, Any]
    seconds: float = 0.0

    @property
    def status(self) -> str:
        """The worst status among the findings."""
        return max((f.status for f in self.findings), key=("ok", "warn", "fail").index, default="ok")

    @property
    def sha256(self) -> str:
        """SHA-256 of the content without the time it took."""
        return _sha256(self._content())

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types, with the certificate's own SHA-256."""
        return self._content() | {"sha256": self.sha256, "seconds": round(self.seconds, 1)}

    def save(self, path: Path) -> None:
        """Write as JSON. Raises MachineError where that cannot be."""
        try:
            write_json(path, self.as_json())
        except OSError as e:
            raise disk_error(e, path) from e

    def text(self) -> str:
        """A line for each finding, and one for the whole."""
        lines = [f.line() for f in self.findings]
        return "\n".join([*lines, f"{self.status:5} certificate {self.sha256[:12]}…, {self.seconds:.0f} s"])

    def _content(self) -> dict[str, Any]:
        return {
            "status": self.status,
            "findings": [f.as_json() for f in self.findings],
            "figures": self.figures,
            "inputs": self.inputs,
            "conditions": self.conditions,
        }


def examine(
    model: Path,
    expanded: Path | None,
    *,
    texts: Sequence[Path] = (),
    script: str | None = None,
    gguf: Path | None = None,
    quick: bool = False,
    out: Path | None = None,
    quiet: bool = False,
) -> audit.Audit | Certificate:
    """What `vocabgraft audit` does: check one folder, or certify the second against the first, showing progress.

    Raises TokenizerError when one folder comes with what only a pair can use; else as `certify`.
    """
    if expanded is None:
        if texts or script or gguf or out:
            raise TokenizerError(
                f"{model}: --text, --script, --gguf and --out compare an expansion with its base; give both folders: "
                "vocabgraft audit BASE EXPANDED"
            )
        return audit.audit_folder(model)
    effort, bar = QUICK if quick else FULL, ConsoleReporter(quiet).bar
    certificate = certify(model, expanded, texts=texts, script=script, gguf=gguf, effort=effort, bar=bar)
    if out:
        certificate.save(out)
    return certificate


def check_certificate(path: Path) -> dict[str, Any]:
    """Read a saved certificate. Raises TokenizerError when it was changed after it was written."""
    try:
        raw: dict[str, Any] = json.loads(path.read_text("utf-8"))
        stated = raw["sha256"]
    except (OSError, ValueError, KeyError, TypeError) as e:
        raise TokenizerError(f"{path}: not a certificate ({e}); write one with: vocabgraft audit BASE EXPANDED") from e
    found = _sha256({k: v for k, v in raw.items() if k not in ("sha256", "seconds")})
    if found != stated:
        raise TokenizerError(f"{path}: SHA-256 {found[:12]}… is not the stated {stated[:12]}…; certify again")
    return raw


def certify(
    base: Path,
    expanded: Path,
    *,
    texts: Sequence[Path] = (),
    script: str | None = None,
    gguf: Path | None = None,
    effort: Effort = FULL,
    seed: int = SEED,
    bar: Bar | None = None,
) -> Certificate:
    """Compare an expanded tokenizer folder with its base in every way this package knows.

    texts: files beside the package's samples and Python's library (.txt, .jsonl, .jsonl.zst, .parquet). script: of the
    new pieces, derived from them when not given. gguf: a GGUF file made of the expanded model, by default the one
    inside its folder; without any, llama.cpp reads what our export would write. Raises TokenizerError for a folder
    without a readable tokenizer, DataError for an unknown script or an unreadable text, ModelError for a bad GGUF.
    """
    began = time.monotonic()
    samples = audit.audit_texts()
    pair = audit.Pair(Folder(base, samples), Folder(expanded, samples), samples, {})
    gguf = gguf or find_gguf(expanded)
    with ExitStack() as stack:
        job = _Job(pair, script, gguf, texts, effort, seed, bar or _no_bar, stack)
        findings = [*job.files(), *job.proofs()]
        return Certificate(
            tuple(findings), job.figures, job.inputs(), job.conditions(), seconds=time.monotonic() - began
        )


class _Job:
    """One certification: what is shared between its parts."""

    def __init__(
        self,
        pair: audit.Pair,
        script: str | None,
        gguf: Path | None,
        texts: Sequence[Path],
        effort: Effort,
        seed: int,
        bar: Bar,
        stack: ExitStack,
    ) -> None:
        fresh = new_pieces(*pair.tokenizers)
        self.pair = audit.Pair(pair.base, pair.expanded, pair.texts, fresh)
        self.script = script or script_of(text_of(pair.expanded.tokenizer, fresh).values())
        self.gguf, self.texts, self.effort, self.seed, self.bar, self.stack = gguf, texts, effort, seed, bar, stack
        self.figures: dict[str, Any] = figures_of(pair.expanded)
        self.library = list(_library(effort.library))
        expanded = pair.expanded.path
        self.engines = (sentence_piece(expanded), stack.enter_context(llama_cpp(expanded, gguf)))
        self.base_engines: dict[str, Engine | Absent] = {}
        present = tuple(e for e in self.engines if isinstance(e, Engine))
        pattern = script_pattern(self.script) if self.script else _NEVER
        self.subject = Subject(*self.pair.tokenizers, pattern, present, self._base_engine)

    def _base_engine(self, name: str) -> Engine | Absent:
        if name not in self.base_engines:
            folder = self.pair.base.path
            llama = name == "llama.cpp"
            made = self.stack.enter_context(llama_cpp(folder)) if llama else sentence_piece(folder)
            self.base_engines[name] = made
        return self.base_engines[name]

    def files(self) -> Iterator[Finding]:
        """The checks of the folder and of the pair that need no texts."""
        self.figures |= audit.pair_figures(self.pair)
        yield from audit.folder_findings(self.pair.expanded)
        for compare in audit.FILE_CHECKS:
            found = compare(self.pair)
            if found is not None:
                yield found
        yield from filter(None, (self._rows(), properties.holes(self.subject)))

    def proofs(self) -> Iterator[Finding]:
        """The properties, in the order of their letters in the reference."""
        readers = (self.subject.readers[1], *self.engines)
        yield properties.pieces_in_script(self.subject, self.script)
        sweeps = self._sweeps()
        for name, sweep in sweeps.items():
            yield properties.unchanged(sweep, name)
        for name, sweep in sweeps.items():
            yield properties.coarser(sweep, name)
        if self.subject.new:
            yield from (properties.reachable(self.subject, engine) for engine in readers)
        yield from (properties.agreement(sweeps, engine) for engine in self.engines)
        yield properties.restored(sweeps)
        yield from filter(None, (self._conversation(), self._gguf_pieces()))
        found, self.figures["forms"] = properties.forms(self.subject)
        yield found
        yield rebuilt(self.pair.base.path, self.pair.expanded.path)
        self.figures["texts_read"] = {name: sweep.as_json() for name, sweep in sweeps.items()}

    def _sweeps(self) -> dict[str, Sweep]:
        points = code_points(self.effort.code_points, self.seed)
        fuzz = fuzz_texts(
            self.effort.fuzz,
            self.seed,
            letters=letters_of(self.subject.script) if self.script else "",
            pieces=list(self.subject.new_texts.values()),
            specials=self.subject.special_names,
        )
        prose = [*audit.prose("english"), *audit.prose("korean"), *self._given()]
        corpora = [*(path.read_text("utf-8", "replace") for path in self.library), *prose]
        corpora += [block for text in corpora for block in blocks_without(text, self.subject.script)]
        kinds = {
            "code points": points,
            "code points after a space": [" " + c for c in points],
            "Python library, prose and given texts": corpora,
            "random mixtures": fuzz,
        }
        return {name: self._sweep(name, texts) for name, texts in kinds.items()}

    def _sweep(self, name: str, texts: Sequence[str]) -> Sweep:
        sweep = Sweep(self.subject)
        with self.bar(name, len(texts)) as advance:
            sweep.read(texts, advance)
        return sweep

    def _given(self) -> Iterator[str]:
        for path in self.texts:
            documents = read_source(str(path), language="", license="", tally=Tally())
            yield from (d.text for d in documents)

    def _rows(self) -> Finding | None:
        both = (self.pair.base, self.pair.expanded)
        sides = [(f.rows, f.config.get("image_token_index", f.config.get("image_token_id"))) for f in both]
        return properties.same_rows(sides[0], sides[1])

    def _conversation(self) -> Finding | None:
        config = self.pair.base.tokenizer_config
        raw = {k: v["content"] if isinstance(v, dict) else v for k, v in config.items() if k.endswith("_token")}
        names = {k: v for k, v in raw.items() if isinstance(v, str)}
        templates = [template_of(f) for f in (self.pair.base, self.pair.expanded)]
        return properties.conversation(self.subject, templates, names)

    def _gguf_pieces(self) -> Finding | None:
        if self.gguf is None:
            return None
        model = self.pair.expanded.path / "tokenizer.model"
        return properties.gguf_pieces(
            self.subject, read_gguf_tokenizer(self.gguf), read_model(model) if model.is_file() else None
        )

    def inputs(self) -> dict[str, str]:
        """SHA-256 of every file read, by a name that is the same on every machine."""
        found: dict[str, str] = {}
        for side, folder in (("base", self.pair.base.path), ("expanded", self.pair.expanded.path)):
            paths = [folder / name for name in (*_READ, *_READ_TOO)]
            found |= {f"{side}/{p.name}": sha256_file(p) for p in paths if p.is_file()}
        if self.gguf is not None:
            found[f"gguf/{self.gguf.name}"] = sha256_file(self.gguf)
        found |= {f"texts/{p.name}": sha256_file(p) for p in self.texts if p.is_file()}
        each = "".join(sha256_file(p) for p in self.library)
        return found | {"Python library": hashlib.sha256(each.encode()).hexdigest()}

    def conditions(self) -> dict[str, Any]:
        """Everything else that decides the content: versions, seed, effort."""
        reader = self.subject.readers[1]
        engines = {e.name: e.version if isinstance(e, Engine) else "not checked" for e in (reader, *self.engines)}
        return {
            "vocabgraft": __version__,
            "python": platform.python_version(),
            "engines": engines,
            "script": self.script,
            "seed": self.seed,
            "effort": vars(self.effort),
            "library_files": len(self.library),
        }


def _library(limit: int | None) -> Iterator[Path]:
    """Python's own library without its tests, which some distributions leave out."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    found = sorted(p for p in folder.rglob("*.py") if not _NO_LIBRARY & set(p.relative_to(folder).parts[:-1]))
    return iter(found if limit is None else found[:: max(1, len(found) // limit)])


@contextmanager
def _no_bar(label: str, total: int) -> Iterator[Callable[[int], None]]:
    yield lambda _: None


def _sha256(content: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(content, ensure_ascii=False, sort_keys=True).encode()).hexdigest()
