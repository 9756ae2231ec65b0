"""Examine any vocabulary-expanded model, ours or not: on its own, and beside the base it came from.

    audit_folder(model)            one folder: the checks of `audit_files`
    audit_pair(base, model, texts) the same, and what the expansion did to the base's tokenizer, in seconds

Works on every Hugging Face tokenizer.json; tokenizer.model, config.json and weights are looked at where they are.
"""

from __future__ import annotations

import json
import sysconfig
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from vocabgraft.audit_files import CHECKS, Folder, figures_of, template_of
from vocabgraft.audit_preflight import ADAPTER_CHECKS, PREFLIGHT, adapter_fits
from vocabgraft.corpus.source import locate
from vocabgraft.errors import TokenizerError
from vocabgraft.finding import Finding
from vocabgraft.tokenizer import compare
from vocabgraft.tokenizer.measure import changed_ids, fertility

_EXTRA_TEXTS = ("혈압이 높은 환자 3명 😀🫀", "def f(x):\n    return x + 1  # 두 칸", "e-mail: a@b.kr, 37.5 °C 👩‍⚕️")
_SOURCES = ("argparse.py", "csv.py", "json/decoder.py", "textwrap.py", "statistics.py")
_SAMPLES = 10
# What is not English in the text that llama.cpp's convert_hf_to_gguf.py tokenises and hashes (get_vocab_base_pre).
_HASHED = (" កាន់តែពិសេសអាច😁", " ?我想在apple工作1314151天～", " нещо на Български", " 33333333 3.3 3..3 3...3")


@dataclass(frozen=True)
class Audit:
    """What was found, in the order of the checks, and figures for people who count."""

    findings: tuple[Finding, ...]
    figures: dict[str, Any] = field(default_factory=dict)

    @property
    def status(self) -> str:
        """The worst status among the findings."""
        return max((f.status for f in self.findings), key=("ok", "warn", "fail").index, default="ok")

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return {"status": self.status, "findings": [f.as_json() for f in self.findings], "figures": self.figures}

    def text(self) -> str:
        """A line for each finding."""
        return "\n".join(f.line() for f in self.findings)


@dataclass(frozen=True)
class Pair:
    """Base and expansion side by side."""

    base: Folder
    expanded: Folder
    texts: tuple[str, ...]
    new: dict[str, int]

    @property
    def tokenizers(self) -> tuple[Tokenizer, Tokenizer]:
        """(base, expanded)."""
        return self.base.tokenizer, self.expanded.tokenizer


def audit_folder(folder: Path) -> Audit:
    """Check one folder. Raises TokenizerError when it has no readable tokenizer.json; an adapter of PEFT needs none."""
    alone = (folder / "adapter_config.json").is_file() and not (folder / "tokenizer.json").is_file()
    return _audit(Folder(folder, _sample_texts(), needs_tokenizer=not alone))


def audit_pair(base: Path, expanded: Path, texts: Sequence[str] = ()) -> Audit:
    """Check an expanded folder and compare its tokenizer with the base's.

    texts: what the new pieces are for; without any, the Korean samples of the package. Only tokenizer files are
    read of the base.
    """
    samples = _sample_texts()
    before, after = Folder(base, samples), Folder(expanded, samples)
    pair = Pair(before, after, tuple(texts) or audit_texts(), compare.new_pieces(before.tokenizer, after.tokenizer))
    alone = _audit(after)
    found = [f for check in PAIR_CHECKS if (f := check(pair)) is not None]
    return Audit(alone.findings + tuple(found), alone.figures | pair_figures(pair))


def audit_texts() -> tuple[str, ...]:
    """The Korean samples of the package: what a pair is compared on when no other text is given."""
    return prose("korean")


def _audit(folder: Folder) -> Audit:
    return Audit(tuple(folder_findings(folder)), figures_of(folder) if folder.has_tokenizer else {})


def folder_findings(folder: Folder) -> Iterator[Finding]:
    """All checks of one folder. Raises TokenizerError when a file has another form than files of its name have."""
    checks = (*CHECKS, *PREFLIGHT) if folder.has_tokenizer else ADAPTER_CHECKS
    for check in checks:
        try:
            found = check(folder)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError) as e:
            doing = (check.__doc__ or check.__name__).splitlines()[0]
            why = f"{type(e).__name__}: {e}"
            raise TokenizerError(
                f"{folder.path}: a JSON file there has another form than files of its name have ({why}); "
                f"restore it. It was looked at for: {doing}"
            ) from e
        if found is not None:
            yield found


def pair_figures(pair: Pair) -> dict[str, Any]:
    """Counts of a pair: new pieces, and what the texts cost before and after."""
    before, after = (fertility(t, pair.texts) for t in pair.tokenizers)
    return {
        "base_tokens": pair.base.tokens,
        "new_pieces": len(pair.new),
        "new_ids": [min(pair.new.values()), max(pair.new.values())] if pair.new else [],
        "examples": list(pair.new)[:20],
        "texts": len(pair.texts),
        "tokens_per_word_before": round(before.tokens_per_word, 3),
        "tokens_per_word_after": round(after.tokens_per_word, 3),
    }


def ids_kept(pair: Pair) -> Finding:
    """Every base piece has the id it had."""
    moved = compare.moved_ids(*pair.tokenizers)
    if not moved:
        return Finding("ids of base pieces", "ok", "none moved")
    names = ", ".join(map(repr, moved[:3]))
    fix = "their rows belong to other pieces now: put new pieces into free slots or behind the last id"
    return Finding("ids of base pieces", "fail", f"{len(moved):,} moved or gone: {names}", fix)


def specials_kept(pair: Pair) -> Finding:
    """Special tokens stay special, at their ids."""
    lost = compare.lost_specials(*pair.tokenizers)
    if not lost:
        return Finding("special tokens", "ok", "all kept")
    names = ", ".join(map(repr, lost[:3]))
    return Finding("special tokens", "fail", f"{len(lost)} lost or no longer special: {names}", "restore added_tokens")


def pieces_added(pair: Pair) -> Finding:
    """How many pieces are new, where they are, and whether merges make them."""
    if not pair.new:
        return Finding("new pieces", "warn", "none", "is this the expanded tokenizer?")
    ids = list(pair.new.values())
    block = "one block" if ids[-1] - ids[0] + 1 == len(ids) else "scattered"
    found = f"{len(ids):,}, ids {ids[0]:,} to {ids[-1]:,}, {block}"
    added = {t.content for t in pair.expanded.tokenizer.get_added_tokens_decoder().values() if not t.special}
    plain = [p for p in pair.new if p in added]
    if plain:
        fix = "added tokens are cut out before merging, also from the middle of words: make them pieces with merges"
        return Finding("new pieces", "warn", f"{found}; {len(plain):,} are added tokens, e.g. {plain[0]!r}", fix)
    return Finding("new pieces", "ok", found)


def reachable(pair: Pair) -> Finding | None:
    """The text of each new piece gives that piece."""
    if not pair.new:
        return None
    lost = compare.unreachable_pieces(pair.expanded.tokenizer, pair.new)
    if not lost:
        return Finding("reachable pieces", "ok", "all new pieces")
    found = f"{len(lost):,} of {len(pair.new):,} are never produced: {', '.join(map(repr, lost[:3]))}"
    fix = "their rows cannot train: add the merges that lead to them, or drop them (tokenizer.select)"
    return Finding("reachable pieces", "fail" if len(lost) * 100 >= len(pair.new) else "warn", found, fix)


def other_text_kept(pair: Pair) -> Finding:
    """ASCII text (English prose, Python) keeps its ids, unless the new pieces are ASCII themselves."""
    texts = _ascii_texts()
    changed = changed_ids(*pair.tokenizers, texts)
    total = fertility(pair.base.tokenizer, texts).tokens
    if not changed:
        return Finding("English and code", "ok", f"all {total:,} ids as before")
    found = f"{changed:,} of {total:,} ids changed"
    latin = sum(any("a" <= c.lower() <= "z" for c in p) for p in pair.new)
    if latin * 2 > len(pair.new):
        return Finding("English and code", "warn", found, "the new language shares the letters: measure what was lost")
    fix = "what the base knows is spelt in the old ids: let new pieces hold letters of the new script only"
    return Finding("English and code", "fail", found, fix)


def coarser(pair: Pair) -> Finding:
    """Each token of the new tokenizer is a run of base tokens."""
    broken = compare.not_coarser(*pair.tokenizers, pair.texts)
    if not broken:
        return Finding("runs of base tokens", "ok", f"on all {len(pair.texts)} texts")
    found = f"not on {len(broken)} of {len(pair.texts)} texts"
    fix = "new rows cannot be built exactly from base rows; expected of pieces from a second, foreign vocabulary"
    return Finding("runs of base tokens", "warn", found, fix)


def cheaper(pair: Pair) -> Finding:
    """The texts cost fewer tokens than before."""
    before, after = (fertility(t, pair.texts).tokens_per_word for t in pair.tokenizers)
    found = f"{before:.2f} tokens a word before, {after:.2f} after"
    if after < before:
        return Finding("cost of the texts", "ok", found)
    return Finding("cost of the texts", "warn", found, "the new pieces are not used on these texts")


def frame_kept(pair: Pair) -> Finding:
    """BOS and EOS are put as before, and the configuration says the same."""
    before, after = (compare.frame(t) for t in pair.tokenizers)
    keys = ("add_bos_token", "add_eos_token", "bos_token", "eos_token")
    old, new = pair.base.tokenizer_config, pair.expanded.tokenizer_config
    stated = [k for k in keys if k in old and k in new and old[k] != new[k]]
    if before == after and not stated:
        return Finding(
            "BOS and EOS", "ok", f"{' '.join(after[0]) or 'none'} before a text, {' '.join(after[1]) or 'none'} after"
        )
    found = f"was {before[0]} … {before[1]}, is {after[0]} … {after[1]}" if before != after else f"{stated} differ"
    return Finding(
        "BOS and EOS", "fail", found, "restore the post_processor of tokenizer.json and tokenizer_config.json"
    )


def template_kept(pair: Pair) -> Finding | None:
    """The chat template is the base's."""
    before, after = template_of(pair.base), template_of(pair.expanded)
    if not before or not after:
        return None
    if before.strip() == after.strip():
        return Finding("chat template of the base", "ok", "the same")
    return Finding("chat template of the base", "warn", "differs", "the base was tuned on its own: use that one")


def converter_knows(pair: Pair) -> Finding | None:
    """llama.cpp's converter still knows the tokenizer: without tokenizer.model it goes by a hash of ids of one text."""
    if (pair.expanded.path / "tokenizer.model").is_file():
        return None
    changed = [t for t in _HASHED if changed_ids(*pair.tokenizers, [t])]
    if not changed:
        return Finding("llama.cpp's converter", "ok", "the ids that it hashes are the base's")
    fix = "it stops with 'BPE pre-tokenizer was not recognized': ship tokenizer.model, or a GGUF file of our export"
    return Finding("llama.cpp's converter", "warn", f"ids of {changed[0].strip()!r} differ, which it hashes", fix)


def adapter_of_base(pair: Pair) -> Finding | None:
    """A PEFT adapter fits the base that it is given with."""
    return adapter_fits(pair.expanded, pair.base.rows)


FILE_CHECKS: tuple[Callable[[Pair], Finding | None], ...] = (
    ids_kept,
    specials_kept,
    pieces_added,
    cheaper,
    frame_kept,
    template_kept,
    converter_knows,
    adapter_of_base,
)
"""The certificate (`certificate.certify`) makes these and has a stronger form of the others."""
PAIR_CHECKS = (*FILE_CHECKS, reachable, other_text_kept, coarser)


def prose(name: str) -> tuple[str, ...]:
    """The sample texts of the package in one language."""
    lines = (x for path in locate(f"samples:{name}").paths for x in path.read_text("utf-8").splitlines() if x.strip())
    return tuple(str(json.loads(line)["text"]) for line in lines)


def _sample_texts() -> tuple[str, ...]:
    return (*prose("korean")[:_SAMPLES], *prose("english")[:_SAMPLES], *_EXTRA_TEXTS)


def _ascii_texts() -> list[str]:
    """English prose of the package and lines of Python's own library, which every machine has."""
    folder = Path(sysconfig.get_paths()["stdlib"])
    lines = [line for name in _SOURCES if (folder / name).is_file() for line in (folder / name).open(encoding="utf-8")]
    return [text for text in (*prose("english"), *lines) if text.isascii()]
