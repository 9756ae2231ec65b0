"""The tiny stand-in is laid out like the real Gemma 3, and the same seed gives the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

from safetensors.torch import load_file

from vocabgraft.models.random_gemma3 import TinyShape, write_random_gemma3
from vocabgraft.tokenizer.vocabulary import BYTE, CONTROL, read_model, slots

SMALL = TinyShape(hidden=16, layers=1, heads=1, head_dim=16, intermediate=32)


def test_the_same_seed_gives_the_same_bytes(english, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        write_random_gemma3(tmp_path / name, english[:6], seed=seed, shape=SMALL)
    content = [{p.name: p.read_bytes() for p in (tmp_path / name).iterdir()} for name in "abc"]
    assert content[0] == content[1]
    assert {name for name in content[0] if content[0][name] != content[2][name]} == {"model.safetensors"}


def test_the_vocabulary_is_laid_out_like_gemmas(tied_world) -> None:
    vocabulary = read_model(tied_world.base / "tokenizer.model")
    assert vocabulary.pieces[:6] == ("<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "<unused0>")
    assert vocabulary.pieces[104:107] == ("<start_of_turn>", "<end_of_turn>", "\n")
    assert vocabulary.types.count(BYTE) == 256
    free = slots(vocabulary)
    assert free == list(range(len(vocabulary) - 400, len(vocabulary)))
    assert {vocabulary.types[i] for i in free} == {CONTROL}


def test_one_matrix_or_two(world) -> None:
    weights = load_file(world.base / "model.safetensors")
    config = json.loads((world.base / "config.json").read_text("utf-8"))
    assert ("lm_head.weight" in weights) == (not world.tied)
    assert config["tie_word_embeddings"] == world.tied
    assert config["architectures"] == ["Gemma3ForCausalLM"]
    assert config["vocab_size"] == len(weights["model.embed_tokens.weight"])


def test_the_chat_template_is_gemmas(tied_world) -> None:
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(tied_world.tokenizer)
    turns = [
        {"role": "system", "content": "짧게 답한다."},
        {"role": "user", "content": " 혈압이 높아요 "},
        {"role": "assistant", "content": "네."},
        {"role": "user", "content": "왜요?"},
    ]
    assert tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True) == (
        "<bos><start_of_turn>user\n짧게 답한다.\n\n혈압이 높아요<end_of_turn>\n"
        "<start_of_turn>model\n네.<end_of_turn>\n<start_of_turn>user\n왜요?<end_of_turn>\n<start_of_turn>model\n"
    )
