"""Checks of what fails when a vocabulary-expanded model is served, from its files alone: no torch, no weights read.

Each is a failure that people met with llama.cpp, vLLM, Ollama or PEFT, told before it happens; docs/using.md has the
table of symptoms. As in `audit_files`, a check says nothing (None) where it does not apply.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from vocabgraft.audit_files import Folder, template_of
from vocabgraft.errors import MachineError
from vocabgraft.finding import Finding
from vocabgraft.models.headers import TensorPlace

_MOST_ROWS = 258_048  # vllm/lora/layers/logits_processor.py since vllm-project/vllm#34773
_THINKING = ("<unused94>", "<unused95>")
_MEDGEMMA = re.compile(r"medgemma|hai-def", re.IGNORECASE)
_HALF = ("float16", "fp16", "half")
_MODELFILE_FROM = re.compile(r"^\s*FROM\s+(\S+)", re.IGNORECASE | re.MULTILINE)


def model_file(folder: Folder) -> Finding | None:
    """A SentencePiece tokenizer has its tokenizer.model beside tokenizer.json."""
    name = "tokenizer.model"
    if (folder.path / name).is_file() or "<0x0A>" not in folder.tokenizer.get_vocab() or _byte_level(folder):
        return None
    fix = "older llama.cpp and our GGUF export read it; transformers 5 saves without: copy it from the expansion"
    return Finding(name, "warn", "none beside a SentencePiece tokenizer.json", fix)


def way_to_cut(folder: Folder) -> Finding | None:
    """llama.cpp knows how a byte-level tokenizer cuts words: it takes that by name, not from tokenizer.json."""
    from vocabgraft.deployment.gguf_pieces import pre_of

    if not _byte_level(folder):
        return None
    name, known = "way to cut words", pre_of(folder.path)
    if known is not None:
        return Finding(name, "ok", f"{known} in llama.cpp")
    fix = "its converter may stop ('BPE pre-tokenizer was not recognized'): name it in the GGUF file and compare ids"
    return Finding(name, "warn", "a pattern of pre_tokenizer that has no llama.cpp name known here", fix)


def _byte_level(folder: Folder) -> bool:
    return "ByteLevel" in str(folder.tokenizer.pre_tokenizer)


def one_number_of_rows(folder: Folder) -> Finding | None:
    """Input matrix, output matrix and both levels of config.json are of one height."""
    outer, inner = folder.config.get("vocab_size"), folder.text_config.get("vocab_size")
    said = {"config.json": outer, "its text_config": inner}
    said |= {
        n: t.shape[0] for n, t in (("embedding", folder.embedding), ("head", folder.head)) if t and len(t.shape) == 2
    }
    found = {name: rows for name, rows in said.items() if rows is not None}
    if len(found) < 2:
        return None
    if len(set(found.values())) == 1:
        return Finding("one number of rows", "ok", f"{next(iter(found.values())):,} in {len(found)} places")
    told = ", ".join(f"{name} {rows:,}" for name, rows in found.items())
    return Finding("one number of rows", "fail", told, "loaders stop, or cut the larger: resize all of them together")


def precision(folder: Folder) -> Finding | None:
    """A Gemma 3 is not held or computed in float16, nor quantised in a way that does not know its norms."""
    if not str(folder.config.get("model_type", "")).startswith("gemma3"):
        return None
    levels = (folder.config, folder.text_config)
    types = {str(level.get(k)) for level in levels for k in ("dtype", "torch_dtype") if k in level}
    raw = folder.config.get("quantization_config")
    quantised: dict[str, Any] = raw if isinstance(raw, dict) else {}
    method = str(quantised.get("quant_method", ""))
    wrong = [f"dtype {t}" for t in sorted(types) if t.removeprefix("torch.") in _HALF]
    wrong += [f"{k} {v}" for k, v in quantised.items() if "dtype" in k and str(v).removeprefix("torch.") in _HALF]
    wrong += ["AWQ of a tool that does not know norms stored as w - 1"] if method == "awq" else []
    if wrong:
        fix = "activations overflow in float16 and answers are garbage: use bfloat16, and llm-compressor for AWQ"
        return Finding("precision", "fail", "; ".join(wrong), fix)
    ignored = " ".join(map(str, quantised.get("ignore") or []))
    if quantised and "vision_config" in folder.config and method == "compressed-tensors" and "vision" not in ignored:
        return Finding("precision", "warn", "the vision tower is quantised too", "leave it out: ignore re:.*vision.*")
    return Finding("precision", "ok", f"{', '.join(sorted(types)) or 'not said'}{f', {method}' if method else ''}")


def thinking(folder: Folder) -> Finding | None:
    """A MedGemma marks its thinking with <unused94> … <unused95>: something must know it, or readers see the marks."""
    if any(folder.tokenizer.token_to_id(t) is None for t in _THINKING):
        return None
    modelfile, template = _text(folder.path / "Modelfile"), template_of(folder)
    metadata = _text(folder.path / "README.md").removeprefix("---").partition("\n---")[0]
    told = metadata + _text(folder.path / "NOTICE") + str(folder.config.get("_name_or_path", ""))
    if not (_THINKING[0] in template or _MEDGEMMA.search(told)):
        return None
    handled = [n for n, text in (("chat template", template), ("Modelfile", modelfile)) if _THINKING[1] in text]
    if handled and not (modelfile and "Modelfile" not in handled):
        return Finding("thinking marks", "ok", f"known to the {' and the '.join(handled)}")
    where = "Modelfile" if modelfile else "chat template"
    fix = f"Ollama and others show '{_THINKING[0]}thought …' to readers: cut up to {_THINKING[1]} from answers"
    return Finding("thinking marks", "warn", f"a MedGemma whose {where} does not name {' and '.join(_THINKING)}", fix)


def ollama_import(folder: Folder) -> Finding | None:
    """A Modelfile builds on a GGUF file: Ollama's own conversion of a Gemma 3 cannot be quantised."""
    found = _MODELFILE_FROM.search(_text(folder.path / "Modelfile"))
    if found is None:
        return None
    source = found[1].strip("\"'")
    if source.endswith(".gguf"):
        if (folder.path / source).is_file() or Path(source).is_absolute():
            return Finding("Modelfile", "ok", f"from {source}")
        return Finding("Modelfile", "fail", f"from {source}, which is not there", "name the GGUF file that ships")
    fix = "quantising stops at 'key not found: gemma3.attention.layer_norm_rms_epsilon': ship our GGUF file, FROM it"
    return Finding("Modelfile", "fail", f"from {source}: Ollama would convert the safetensors itself", fix)


def gguf_files(folder: Folder) -> Finding | None:
    """GGUF files in the folder have this tokenizer, of its kind, without holes, and the settings that readers need."""
    paths = sorted(p for p in folder.path.glob("*.gguf") if "mmproj" not in p.name)
    if not paths:
        return None
    try:
        wrong = [f"{path.name}: {why}" for path in paths for why in _wrong_in(path, folder)]
    except MachineError as e:
        return Finding("GGUF files", "warn", f"not read: {e}")
    if wrong:
        fix = "new text is cut differently, in silence, or the file does not load: export it anew with vocabgraft"
        return Finding("GGUF files", "fail", "; ".join(wrong[:3]), fix)
    return Finding("GGUF files", "ok", f"{len(paths)} with the tokenizer of this folder")


def _wrong_in(path: Path, folder: Folder) -> Iterator[str]:
    from vocabgraft.models.gguf_file import open_gguf

    try:
        fields = open_gguf(path).fields
        kinds = {k: fields[k].contents() for k in ("general.architecture", "tokenizer.ggml.model") if k in fields}
        pieces = fields["tokenizer.ggml.tokens"].contents() if "tokenizer.ggml.tokens" in fields else []
    except (OSError, ValueError, IndexError, KeyError) as e:
        yield f"cannot be read ({e})"
        return
    needed = f"{kinds.get('general.architecture')}.attention.layer_norm_rms_epsilon"
    if needed not in fields:
        yield f"no {needed}"
    kind = kinds.get("tokenizer.ggml.model")
    if kind == "llama" and _byte_level(folder):
        yield "tokenizer.ggml.model is 'llama', but tokenizer.json is byte-level BPE ('gpt2')"
    here = {i: p for p, i in folder.tokenizer.get_vocab(with_added_tokens=True).items()}
    holes = [i for i, p in enumerate(pieces) if p.startswith("[PAD") and here.get(i, p) != p]
    if holes:
        yield f"{len(holes):,} pieces are holes, e.g. {holes[0]}: {pieces[holes[0]]!r}, not {here[holes[0]]!r}"
    added = folder.tokenizer.get_added_tokens_decoder()
    beyond = [i for i in here if i >= len(pieces) and i not in added]
    if beyond:
        yield f"{len(beyond):,} pieces of tokenizer.json are missing, e.g. {here[beyond[0]]!r}"


def words_as_added_tokens(folder: Folder) -> Finding | None:
    """Words are pieces with merges, not added tokens: those are cut out of a text before anything merges."""
    added = folder.tokenizer.get_added_tokens_decoder()
    words = [t.content for t in added.values() if not t.special and t.content.strip(" ▁").isalpha()]
    if not words:
        return None
    word = words[0].strip(" ▁")
    cut = folder.tokenizer.encode(f"{word} {word}", add_special_tokens=False).tokens
    fix = "spaces are left dangling and words are cut in their middle: graft pieces with merges, ▁ and plain forms"
    return Finding("words as added tokens", "warn", f"{len(words):,}; '{word} {word}' becomes {cut}", fix)


def served_adapter(folder: Folder) -> Finding | None:
    """A PEFT adapter holds what vLLM can serve beside a base: attention and MLP, and no rows."""
    settings = folder.read_json("adapter_config.json")
    if not settings:
        return None
    targets = settings.get("target_modules") or []
    names = set(targets) if isinstance(targets, list) else {str(targets)}
    names |= {part for tensor in folder.headers[0] for part in ("lm_head", "embed_tokens") if f"{part}." in tensor}
    wrong = [f"modules_to_save {settings['modules_to_save']}"] if settings.get("modules_to_save") else []
    wrong += ["trainable_token_indices"] if settings.get("trainable_token_indices") else []
    wrong += [f"an adapter of {n}" for n in ("lm_head", "embed_tokens") if any(n in x for x in names)]
    name = "PEFT adapter"
    if wrong:
        fix = "vLLM refuses these ('only supports modules_to_save being None'): merge the adapter, then serve"
        return Finding(name, "fail", "; ".join(wrong), fix)
    rows = _base_rows(folder) or folder.rows or (folder.tokens if folder.has_tokenizer else 0)
    if rows > _MOST_ROWS:
        fix = (
            f"vLLM's LoRA over the output takes up to {_MOST_ROWS:,} rows (once 33,024): merge the adapter, then serve"
        )
        return Finding(name, "warn", f"for a model of {rows:,} rows", fix)
    return Finding(name, "ok", "attention and MLP alone")


def adapter_fits(folder: Folder, base_rows: int | None = None) -> Finding | None:
    """The base of a PEFT adapter has the rows that the adapter and its tokenizer speak of."""
    if not folder.read_json("adapter_config.json"):
        return None
    have = base_rows or _base_rows(folder)
    if have is None:
        return None
    want = {n: _height(n, t) for n, t in folder.headers[0].items() if "embed_tokens" in n or "lm_head" in n}
    want |= {"its tokenizer": folder.tokens} if folder.has_tokenizer else {}
    wrong = {n: rows for n, rows in want.items() if rows is not None and _misfit(n, rows, have)}
    if not wrong:
        return Finding("base of the adapter", "ok", f"{have:,} rows")
    name, rows = next(iter(wrong.items()))
    fix = "loading stops with a size mismatch: resize the base (resize_token_embeddings), then load the adapter"
    return Finding("base of the adapter", "fail", f"it has {have:,} rows, {name} {rows:,}", fix)


def _misfit(name: str, rows: int, have: int) -> bool:
    return rows > have if name == "its tokenizer" else rows != have


def _height(name: str, place: TensorPlace) -> int | None:
    """How many rows of the vocabulary a tensor of an adapter stands for."""
    if "lora_embedding_A" in name:
        return place.shape[-1]
    whole = "lora_" not in name or ("lm_head" in name and "lora_B" in name)
    return place.shape[0] if whole and len(place.shape) == 2 else None


def _base_rows(folder: Folder) -> int | None:
    """Rows of the base that an adapter names, when that is a folder here."""
    named = folder.read_json("adapter_config.json").get("base_model_name_or_path")
    if not isinstance(named, str) or not named:
        return None
    path = next((p for p in (Path(named), folder.path / named) if (p / "config.json").is_file()), None)
    return Folder(path, (), needs_tokenizer=False).rows if path else None


def _text(path: Path) -> str:
    return path.read_text("utf-8", "replace") if path.is_file() else ""


ADAPTER_CHECKS = (served_adapter, adapter_fits)
"""What can be said of an adapter folder without a tokenizer."""
PREFLIGHT = (
    model_file,
    way_to_cut,
    one_number_of_rows,
    precision,
    thinking,
    words_as_added_tokens,
    gguf_files,
    ollama_import,
    *ADAPTER_CHECKS,
)
