"""The certificate at work: expansions of real vocabularies, and every fault it claims to find.

    python benchmarks/tokenizer_certificate.py             Gemma 3 (slots, append), SmolLM2 (append)
    python benchmarks/tokenizer_certificate.py --quick     a tiny Gemma-style vocabulary, at most 3 minutes

Faults are planted one at a time into a good expansion, each as it was seen in public: all of them into a tiny
vocabulary and, in the full run, the most frequent ones into Gemma 3 itself. Found means: a failing finding of the kind
that is named with the fault. Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

from tokenizers import Tokenizer

from vocabgraft.audit import prose
from vocabgraft.certificate import FULL, QUICK, Certificate, Effort, certify
from vocabgraft.corpus.document import Tally, read_source
from vocabgraft.corpus.script import script_pattern
from vocabgraft.models.chat_templates import GEMMA
from vocabgraft.models.random_gemma3 import gemma_style_vocabulary
from vocabgraft.tokenizer.boundary import word_rule
from vocabgraft.tokenizer.count import count_words
from vocabgraft.tokenizer.expand import Place, expand_tokenizer
from vocabgraft.tokenizer.measure import load_tokenizer
from vocabgraft.tokenizer.select import Limits, select_pieces
from vocabgraft.tokenizer.train import train_pieces
from vocabgraft.tokenizer.vocabulary import (
    Vocabulary,
    read_model,
    slots,
    write_json,
    write_model,
    write_tokenizer,
)

SMALL = Effort(code_points=600, library=4, fuzz=400)
PIECES = 60
LAW = Path("../shared/data/ko/medical_law.jsonl.zst")
WIKITEXT = Path("../shared/data/en/wikitext2_test.txt")  # certified beside Python's library and our prose, where it is
Plant = Callable[[Path], Path | None]
"""Damages an expanded folder; returns a GGUF file when the fault is in one."""


def neighbours(folder: Path, language: str, letters: str) -> list[str]:
    """Pairs of base pieces of one script that stand side by side and are no piece, the most frequent first."""
    tokenizer, inside = Tokenizer.from_file(str(folder / "tokenizer.json")), script_pattern(letters)
    known, counts = tokenizer.get_vocab(), Counter[str]()
    for text in prose(language):
        for left, right in pairwise(tokenizer.encode(text, add_special_tokens=False).tokens):
            whole = left.removeprefix("▁") + right
            if right and left + right not in known and all(inside.fullmatch(c) for c in whole):
                counts[left + right] += 1
    return [piece for piece, _ in counts.most_common()]


def make_base(folder: Path) -> Path:
    """A tiny Gemma-style tokenizer folder with a configuration of padded rows and an image token."""
    table = gemma_style_vocabulary([*prose("english"), *prose("korean")[::3]], normal=900, free_slots=150)
    write_tokenizer(table, folder, GEMMA)
    config = {"model_type": "gemma3", "image_token_index": 10, "text_config": {"vocab_size": len(table) + 64}}
    (folder / "config.json").write_text(json.dumps(config), "utf-8")
    return folder


def make_good(base: Path, out: Path, pieces: int = PIECES) -> Path:
    """A good expansion of a base folder: Hangul pairs below all base pieces, in free slots."""
    shutil.copytree(base, out, ignore=shutil.ignore_patterns("*.safetensors"))
    new = neighbours(base, "korean", "Hangul")[:pieces]
    table = read_model(base / "tokenizer.model")
    rewrite(out, table.put(slots(table)[: len(new)], new))
    return out


def rewrite(folder: Path, table: Vocabulary) -> None:
    """Both tokenizer files of a folder from one table."""
    write_model(table, folder / "tokenizer.model")
    write_json(table, folder / "tokenizer.json")


def change(path: Path, edit: Callable[[dict[str, Any]], Any]) -> None:
    """Edit a JSON file in place."""
    raw = json.loads(path.read_text("utf-8"))
    edit(raw)
    path.write_text(json.dumps(raw, ensure_ascii=False), "utf-8")


def new_ids(folder: Path) -> list[int]:
    """Ids of the slots that a good expansion took: those whose piece is not that of the base beside it."""
    before, after = (read_model(f / "tokenizer.model").pieces for f in (folder.parent / "base", folder))
    return [i for i, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]


def scored(folder: Path, score: float) -> Vocabulary:
    """The table with one score for all new pieces."""
    table, new = read_model(folder / "tokenizer.model"), set(new_ids(folder))
    return replace(table, scores=tuple(score if i in new else s for i, s in enumerate(table.scores)))


def score_zero(folder: Path) -> None:
    """Chinese-LLaMA's merge script: new pieces with score 0 in tokenizer.model, before every base merge."""
    rewrite(folder, scored(folder, 0.0))


def score_zero_in_one_file(folder: Path) -> None:
    """The same, read by transformers 5, which orders by id and ignores scores."""
    write_model(scored(folder, 0.0), folder / "tokenizer.model")


def latin_pieces(folder: Path) -> None:
    """A second vocabulary put in whole, English pieces and all."""
    table, new = read_model(folder / "tokenizer.model"), neighbours(folder, "english", "Latin")[:20]
    rewrite(folder, table.put(slots(table)[: len(new)], new))


def added_tokens(folder: Path) -> None:
    """`tokenizer.add_tokens`: cut out before merging, also from the middle of words; unknown to tokenizer.model."""
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    tokenizer.add_tokens(["고혈압", "당뇨병", "약을"])
    tokenizer.save(str(folder / "tokenizer.json"))


def padded_rows_cut(folder: Path) -> None:
    """`resize_token_embeddings(len(tokenizer))` on a base with padded rows."""
    change(
        folder / "config.json", lambda raw: raw["text_config"].update(vocab_size=raw["text_config"]["vocab_size"] - 64)
    )


def rows_missing(folder: Path) -> None:
    """Tokens appended, rows not."""
    change(folder / "config.json", lambda raw: raw["text_config"].update(vocab_size=new_ids(folder)[5]))


def stale_decoder(folder: Path) -> None:
    """tokenizer_config.json still names the slots that were re-used."""
    before = read_model(folder.parent / "base" / "tokenizer.model").pieces
    stale = {str(i): {"content": before[i], "special": True} for i in new_ids(folder)}
    change(folder / "tokenizer_config.json", lambda raw: raw.update(added_tokens_decoder=stale))


def gguf_unmerged(folder: Path) -> Path:
    """convert_hf_to_gguf.py gives ids listed as added tokens the score -1000."""
    from vocabgraft.deployment.gguf_tokenizer import write_folder_tokenizer

    broken = folder.parent / "broken"
    shutil.copytree(folder, broken)
    write_model(scored(folder, -1000.0), broken / "tokenizer.model")
    write_folder_tokenizer(broken, folder / "model.gguf")
    return folder / "model.gguf"


def gguf_of_the_base(folder: Path) -> Path:
    """A GGUF file exported before the expansion."""
    from vocabgraft.deployment.gguf_tokenizer import write_folder_tokenizer

    write_folder_tokenizer(folder.parent / "base", folder / "model.gguf")
    return folder / "model.gguf"


def json_alone(folder: Path) -> None:
    """transformers 5 saves tokenizer.json; the tokenizer.model beside it is still the base's."""
    shutil.copyfile(folder.parent / "base" / "tokenizer.model", folder / "tokenizer.model")


def ids_moved(folder: Path) -> None:
    """Two base pieces changed places."""
    table = read_model(folder / "tokenizer.model")
    pieces = list(table.pieces)
    pieces[600], pieces[601] = pieces[601], pieces[600]
    rewrite(folder, replace(table, pieces=tuple(pieces)))


def special_lost(folder: Path) -> None:
    """<end_of_turn> is ordinary text."""
    change(
        folder / "tokenizer.json",
        lambda raw: raw.update(added_tokens=[t for t in raw["added_tokens"] if t["content"] != "<end_of_turn>"]),
    )


def bos_lost(folder: Path) -> None:
    """tokenizer.json without its post-processor."""
    change(folder / "tokenizer.json", lambda raw: raw.update(post_processor=None))


def merges_lost(folder: Path) -> None:
    """New pieces without the merges that lead to them."""
    change(folder / "tokenizer.json", lambda raw: raw["model"]["merges"].__delitem__(slice(-40, None)))


def template_changed(folder: Path) -> None:
    """Another chat template."""
    (folder / "chat_template.jinja").write_text("{% for m in messages %}{{ m.content }}{% endfor %}", "utf-8")


def image_moved(folder: Path) -> None:
    """The image token of the configuration is another token."""
    change(folder / "config.json", lambda raw: raw.update(image_token_index=11))


def ids_skipped(folder: Path) -> None:
    """One token far behind the last id."""

    def far(raw: dict[str, Any]) -> None:
        raw["model"]["vocab"]["혈당치가"] = max(raw["model"]["vocab"].values()) + 20

    change(folder / "tokenizer.json", far)


def decoder_lost(folder: Path) -> None:
    """The decoder no longer joins bytes to letters."""
    change(folder / "tokenizer.json", lambda raw: raw.update(decoder={"type": "Fuse"}))


FAULTS: dict[str, tuple[Plant, str]] = {
    "score 0, both files": (score_zero, "runs of base tokens"),
    "score 0, tokenizer.model": (score_zero_in_one_file, "sentencepiece = tokenizers"),
    "Latin pieces": (latin_pieces, "ids unchanged"),
    "Latin pieces, by their script": (latin_pieces, "script of the new pieces"),
    "add_tokens": (added_tokens, "reachable in sentencepiece"),
    "padded rows cut": (padded_rows_cut, "rows and image token"),
    "rows missing": (rows_missing, "rows for tokens"),
    "stale added_tokens_decoder": (stale_decoder, "added tokens"),
    "GGUF scores of -1000": (gguf_unmerged, "pieces of the GGUF file"),
    "GGUF scores of -1000, by its ids": (gguf_unmerged, "llama.cpp = tokenizers"),
    "GGUF of the base": (gguf_of_the_base, "pieces of the GGUF file"),
    "tokenizer.json alone": (json_alone, "tokenizer.model = tokenizer.json"),
    "base ids moved": (ids_moved, "ids of base pieces"),
    "special token lost": (special_lost, "special tokens"),
    "BOS lost": (bos_lost, "BOS and EOS"),
    "merges lost": (merges_lost, "reachable in tokenizers"),
    "chat template changed": (template_changed, "conversation through the chat template"),
    "image token moved": (image_moved, "rows and image token"),
    "ids skipped": (ids_skipped, "ids without a token"),
    "decoder lost": (decoder_lost, "round trip"),
}
"""Name -> (what plants it, how the finding that must fail begins)."""


COMMON = ("score 0, both files", "Latin pieces", "add_tokens", "stale added_tokens_decoder", "GGUF scores of -1000")
"""Those that are planted into a real vocabulary too."""


def plant(base: Path, good: Path, name: str, place: Path) -> Certificate:
    """The certificate of a good expansion into which one fault was put, in copies below `place`."""
    for folder, goal in ((base, place / "base"), (good, place / "expanded")):
        shutil.copytree(folder, goal, ignore=shutil.ignore_patterns("*.safetensors"))
    gguf = FAULTS[name][0](place / "expanded")
    return certify(place / "base", place / "expanded", effort=SMALL, gguf=gguf)


def is_found(certificate: Certificate, name: str) -> bool:
    """Whether the finding that belongs to the fault failed."""
    return any(f.status == "fail" and f.name.startswith(FAULTS[name][1]) for f in certificate.findings)


def find_common_faults(scratch: Path) -> dict[str, bool]:
    """Of the faults seen most often, whether each is found in Gemma 3."""
    from bases import gemma

    good = learn(gemma(), scratch / "with-room", "slots", 6000)
    return find_faults(gemma(), good, scratch / "faults", COMMON)


def find_faults(base: Path, good: Path, scratch: Path, names: Iterable[str]) -> dict[str, bool]:
    """Of each fault, whether it was found."""
    found = {}
    for n, name in enumerate(names):
        found[name] = is_found(plant(base, good, name, scratch / str(n)), name)
        print(f"{name}: {'found' if found[name] else 'NOT FOUND'}", file=sys.stderr)
    return found


def learn(base: Path, out: Path, place: Place, size: int) -> Path:
    """An expansion as the steps make it, from our Korean prose and, where it is, medical law."""
    script, tokenizer = script_pattern("Hangul"), load_tokenizer(base)
    texts = prose("korean")
    if LAW.is_file():
        texts = (*texts, *(d.text for d in read_source(str(LAW), language="ko", license="", tally=Tally())))
    counts = count_words(texts, word_rule(tokenizer), threads=2).having(script.pattern)
    candidates = train_pieces(tokenizer, counts, script=script, size=size, min_count=2)
    chosen = select_pieces(base, candidates, counts, Limits(size), place=place)
    expand_tokenizer(base, chosen.pieces, chosen.uses, out, place=place).save(out / "expansion.json")
    return out


def expansions(scratch: Path) -> Iterator[tuple[str, Path, Path]]:
    """The real vocabularies: (name, base, expanded)."""
    from bases import gemma, smollm2

    for name, base, place, size in (
        ("gemma 3, slots", gemma(), "slots", 6143),
        ("gemma 3, append", gemma(), "append", 6143),
        ("smollm2, append", smollm2(), "append", 10_000),
    ):
        yield name, base, learn(base, scratch / name, place, size)


def certified(base: Path, expanded: Path, effort: Effort) -> dict[str, Any]:
    """Figures of one certificate; its findings go to standard error."""
    cpu = time.process_time()
    found = certify(base, expanded, texts=[WIKITEXT] if WIKITEXT.is_file() else [], effort=effort)
    print(found.text(), file=sys.stderr)
    return {
        "differences": sum(f.status == "fail" for f in found.findings),
        "not_checked": [f.name for f in found.findings if f.status == "warn"],
        "seconds": round(found.seconds, 1),
        "cpu_seconds": round(time.process_time() - cpu, 1),
        "pieces": found.figures["new_pieces"],
        "texts": sum(s["texts"] for s in found.figures["texts_read"].values()),
        "engines": found.conditions["engines"],
        "sha256": found.sha256,
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--quick", action="store_true")
    quick = options.parse_args().quick
    with tempfile.TemporaryDirectory() as place:
        scratch = Path(place)
        tiny = make_base(scratch / "tiny")
        small = make_good(tiny, scratch / "small")
        pairs = [("tiny gemma style, slots", tiny, small)] if quick else list(expansions(scratch))
        rows = {name: certified(base, expanded, QUICK if quick else FULL) for name, base, expanded in pairs}
        found = {"tiny": find_faults(tiny, small, scratch / "tiny-faults", FAULTS)}
        if not quick:
            found["gemma 3"] = find_common_faults(scratch)
    print(
        json.dumps(
            {
                "differences": sum(r["differences"] for r in rows.values()),
                "seconds": max(r["seconds"] for r in rows.values()),
                "planted_faults": sum(map(len, found.values())),
                "found_faults": sum(sum(f.values()) for f in found.values()),
                "not_found": [f"{at}: {name}" for at, f in found.items() for name in f if not f[name]],
                "certificates": rows,
            },
            ensure_ascii=False,
        )
    )


if __name__ == "__main__":
    main()
