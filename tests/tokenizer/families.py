"""Small tokenizers of the families that can be expanded, laid out as their makers do, and a plain learner of pieces.

Each builder writes a whole folder without weights: tokenizer files, configuration, chat template. Patterns, special
tokens and settings are those of the named models; only the vocabulary is small and trained on the given texts.
"""

from __future__ import annotations

import io
import json
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from vocabgraft.models.chat_templates import GEMMA
from vocabgraft.models.random_gemma3 import gemma_style_vocabulary
from vocabgraft.tokenizer.measure import load_tokenizer
from vocabgraft.tokenizer.train import Candidate
from vocabgraft.tokenizer.vocabulary import read_model, write_tokenizer

LLAMA3_PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
QWEN_PATTERN = LLAMA3_PATTERN.replace(r"\p{N}{1,3}", r"\p{N}")
CHATML = (
    "{% for m in messages %}{{ '<|im_start|>' + m['role'] + '\\n' + m['content'] + '<|im_end|>\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
LLAMA3_TEMPLATE = (
    "{{ '<|begin_of_text|>' }}{% for m in messages %}{{ '<|start_header_id|>' + m['role'] + '<|end_header_id|>\\n\\n'"
    " + m['content'] + '<|eot_id|>' }}{% endfor %}"
)
NORMAL_PIECES = 700
LETTERS = 600  # sentencepiece counts letters among the pieces, byte-level BPE needs none


@dataclass(frozen=True)
class Family:
    """A builder of base folders, and what it gives: free placeholders, free padded rows, the image token if any."""

    write: Callable[[Path, Sequence[str]], None]
    slots: int
    padded: int
    image: str = ""
    sentencepiece: bool = False


def write_gemma(folder: Path, texts: Sequence[str]) -> None:
    """Gemma 3 270M and 1B: 400 placeholders from <unused99> on, rows for the pieces of tokenizer.model and no more."""
    vocabulary = gemma_style_vocabulary(texts, normal=LETTERS + NORMAL_PIECES)
    write_tokenizer(vocabulary, folder, GEMMA)
    _dump(folder / "config.json", {"model_type": "gemma3_text", "vocab_size": len(vocabulary)})


def write_gemma_with_images(folder: Path, texts: Sequence[str]) -> None:
    """Gemma 3 4B and up: the image token only in tokenizer.json, right behind tokenizer.model; 64 rows from it on."""
    write_gemma(folder, texts)
    tokenizer = load_tokenizer(folder)
    image = tokenizer.get_vocab_size()
    raw = json.loads((folder / "tokenizer.json").read_text("utf-8"))
    raw["added_tokens"].append(_added(image, "<image_soft_token>"))
    _dump(folder / "tokenizer.json", raw)
    config = {"model_type": "gemma3", "image_token_index": image, "text_config": {"vocab_size": image + 64}}
    _dump(folder / "config.json", config)
    entries = {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in raw["added_tokens"]}
    tokenizer_config = json.loads((folder / "tokenizer_config.json").read_text("utf-8"))
    tokenizer_config |= {"added_tokens_decoder": entries, "image_token": "<image_soft_token>"}
    _dump(folder / "tokenizer_config.json", tokenizer_config)
    _dump(folder / "processor_config.json", {"image_seq_length": 256, "processor_class": "Gemma3Processor"})


def write_llama2(folder: Path, texts: Sequence[str]) -> None:
    """Llama 2 and Mistral 7B: a space put before every text, no placeholder, no padded row."""
    import sentencepiece
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors

    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=(line for text in texts for line in text.splitlines() if line),
        model_writer=model,
        model_type="bpe",
        vocab_size=LETTERS + NORMAL_PIECES + 259,
        byte_fallback=True,
        character_coverage=0.9995,
        normalization_rule_name="identity",
        remove_extra_whitespaces=False,
        split_digits=True,
        num_threads=1,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.model").write_bytes(model.getvalue())
    table = read_model(folder / "tokenizer.model")
    tok = Tokenizer(
        models.BPE(vocab=table.ids, merges=table.merges(), unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    tok.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    steps = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    tok.decoder = decoders.Sequence(steps)
    tok.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A <s>:1 $B:1", special_tokens=[("<s>", 1)]
    )
    tok.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in ("<unk>", "<s>", "</s>")])
    tok.save(str(folder / "tokenizer.json"))
    names = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    _dump(folder / "tokenizer_config.json", {"tokenizer_class": "LlamaTokenizer", "add_bos_token": True, **names})
    _dump(folder / "special_tokens_map.json", names)
    _dump(folder / "config.json", {"model_type": "llama", "vocab_size": len(table)})


def write_llama3(folder: Path, texts: Sequence[str]) -> None:
    """Llama 3: whole words looked up before merging, special tokens after the vocabulary, placeholders among them."""
    from tokenizers import processors

    specials = ["<|begin_of_text|>", "<|end_of_text|>", *(f"<|reserved_special_token_{i}|>" for i in range(4))]
    specials += ["<|start_header_id|>", "<|end_header_id|>", "<|reserved_special_token_4|>", "<|eot_id|>"]
    specials += [f"<|reserved_special_token_{i}|>" for i in range(5, 60)]
    raw = _byte_level(texts, _split(LLAMA3_PATTERN), [])
    first = len(raw["model"]["vocab"])
    raw["model"]["ignore_merges"] = True
    raw["added_tokens"] = [_added(first + i, token) for i, token in enumerate(specials)]
    template = processors.TemplateProcessing(
        single="<|begin_of_text|> $A",
        pair="<|begin_of_text|> $A <|begin_of_text|>:1 $B:1",
        special_tokens=[("<|begin_of_text|>", first)],
    )
    level = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    raw["post_processor"] = {"type": "Sequence", "processors": [level, json.loads(template.__getstate__())]}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "bos_token": "<|begin_of_text|>",
        "eos_token": "<|eot_id|>",
        # Llama 3.1 pads in fine-tuning with a placeholder that it renamed; here the configuration names one.
        "pad_token": "<|reserved_special_token_2|>",
        "added_tokens_decoder": {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in raw["added_tokens"]},
        "chat_template": LLAMA3_TEMPLATE,
    }
    _write(folder, raw, config, {"model_type": "llama", "vocab_size": first + len(specials)})
    _dump(folder / "generation_config.json", {"eos_token_id": [first + 1, first + 9, first + 8]})


def write_qwen(folder: Path, texts: Sequence[str]) -> None:
    """Qwen 2.5 and Qwen-VL: NFC, some added tokens not special, padded rows behind, files for slow tokenizers."""
    raw = _byte_level(texts, _split(QWEN_PATTERN), [])
    raw["normalizer"] = {"type": "NFC"}
    first = len(raw["model"]["vocab"])
    special = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>", "<|image_pad|>"]
    tokens = [*special, "<tool_call>", "</tool_call>"]
    raw["added_tokens"] = [_added(first + i, token, special=token in special) for i, token in enumerate(tokens)]
    config = {
        "tokenizer_class": "Qwen2Tokenizer",
        "add_prefix_space": False,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "added_tokens_decoder": {str(t["id"]): {k: v for k, v in t.items() if k != "id"} for t in raw["added_tokens"]},
        "additional_special_tokens": special[1:],
        "chat_template": CHATML,
    }
    rows = {"model_type": "qwen2_5_vl", "image_token_id": first + 5, "text_config": {"vocab_size": first + 48}}
    _write(folder, raw, config, rows)
    _dump(folder / "vocab.json", raw["model"]["vocab"])
    merges = [f"{a} {b}" for a, b in raw["model"]["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges]) + "\n", "utf-8")


def write_smollm2(folder: Path, texts: Sequence[str]) -> None:
    """SmolLM2: special tokens first and inside the vocabulary, single digits, merges spelt 'a b', no room at all."""
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    steps = [{"type": "Digits", "individual_digits": True}, level]
    raw = _byte_level(texts, steps, ["<|endoftext|>", "<|im_start|>", "<|im_end|>"])
    raw["model"]["merges"] = [f"{a} {b}" for a, b in raw["model"]["merges"]]
    config = {
        "tokenizer_class": "GPT2Tokenizer",
        "bos_token": "<|im_start|>",
        "eos_token": "<|im_end|>",
        "unk_token": "<|endoftext|>",
        "pad_token": "<|im_end|>",
        "chat_template": CHATML,
        "vocab_size": len(raw["model"]["vocab"]),
    }
    _write(folder, raw, config, {"model_type": "llama", "vocab_size": len(raw["model"]["vocab"])})


FAMILIES: dict[str, Family] = {
    "gemma": Family(write_gemma, slots=400, padded=0, sentencepiece=True),
    "gemma-images": Family(write_gemma_with_images, 400, 63, "<image_soft_token>", sentencepiece=True),
    "llama2": Family(write_llama2, slots=0, padded=0, sentencepiece=True),
    "llama3": Family(write_llama3, slots=58, padded=0),
    "qwen": Family(write_qwen, slots=0, padded=40, image="<|image_pad|>"),
    "smollm2": Family(write_smollm2, slots=0, padded=0),
}


def learn_pieces(base: Path, texts: Iterable[str], size: int) -> list[Candidate]:
    """The `size` most frequent merges over Korean words, one after the other, by the definition of BPE."""
    tokenizer = load_tokenizer(base)
    known = set(tokenizer.get_vocab(with_added_tokens=True))
    words = Counter(word for text in texts for word in re.findall(" ?[가-힣]+", text))
    runs: Counter[tuple[tuple[int, ...], ...]] = Counter()
    for word, n in words.items():
        ids = tokenizer.encode(word, add_special_tokens=False).ids
        runs[tuple((i,) for i in ids)] += n
    names = {i: piece for piece, i in tokenizer.get_vocab().items()}
    learnt: list[Candidate] = []
    while len(learnt) < size:
        pairs = Counter()
        for run, n in runs.items():
            for left, right in pairwise(run):
                pairs[left, right] += n
        best = next(p for p, _ in sorted(pairs.items(), key=lambda row: (-row[1], row[0])) if _fits(p, names, known))
        left, right = ("".join(names[i] for i in part) for part in best)
        known.add(left + right)
        learnt.append(Candidate(left + right, best[0] + best[1], (left, right)))
        runs = Counter({_merged(run, best): n for run, n in runs.items()})
    return learnt


def _fits(pair: tuple[tuple[int, ...], tuple[int, ...]], names: dict[int, str], known: set[str]) -> bool:
    pieces = [names[i] for part in pair for i in part]
    inner = "".join(pieces)[1:]
    return "".join(pieces) not in known and not any(p.startswith("<0x") for p in pieces) and not set(inner) & set("▁Ġ")


def _merged(run: tuple[tuple[int, ...], ...], pair: tuple[tuple[int, ...], ...]) -> tuple[tuple[int, ...], ...]:
    found: list[tuple[int, ...]] = []
    for part in run:
        if found and (found[-1], part) == pair:
            found[-1] = found[-1] + part
        else:
            found.append(part)
    return tuple(found)


def _byte_level(texts: Sequence[str], steps: list[dict[str, Any]], specials: list[str]) -> dict[str, Any]:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tok.decoder = decoders.ByteLevel()
    raw = json.loads(tok.to_str())
    raw["pre_tokenizer"] = {"type": "Sequence", "pretokenizers": steps}
    tok = Tokenizer.from_str(json.dumps(raw))
    trainer = trainers.BpeTrainer(
        vocab_size=256 + len(specials) + NORMAL_PIECES,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=specials,
        show_progress=False,
    )
    tok.train_from_iterator(texts, trainer)
    trained: dict[str, Any] = json.loads(tok.to_str())
    return trained


def _split(pattern: str) -> list[dict[str, Any]]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return [split, {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": False, "use_regex": False}]


def _added(i: int, content: str, *, special: bool = True) -> dict[str, Any]:
    flags = {"single_word": False, "lstrip": False, "rstrip": False, "normalized": False}
    return {"id": i, "content": content, **flags, "special": special}


def _write(folder: Path, raw: dict[str, Any], tokenizer_config: dict[str, Any], config: dict[str, Any]) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    _dump(folder / "tokenizer.json", raw)
    _dump(folder / "tokenizer_config.json", tokenizer_config)
    _dump(folder / "config.json", config)


def _dump(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, ensure_ascii=False, indent=1), "utf-8")
