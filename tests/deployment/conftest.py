"""A Gemma 3 of 2 layers with random weights and a hand-made vocabulary: a real folder in a second."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from vocabgraft.models.chat_templates import GEMMA
from vocabgraft.tokenizer.vocabulary import (
    BYTE,
    CONTROL,
    NORMAL,
    UNKNOWN,
    USER_DEFINED,
    Vocabulary,
    write_tokenizer,
)

MakeFolder = Callable[..., Path]


def _vocabulary() -> Vocabulary:
    special = [("<pad>", CONTROL), ("<eos>", CONTROL), ("<bos>", CONTROL), ("<unk>", UNKNOWN)]
    special += [("<start_of_turn>", CONTROL), ("<end_of_turn>", CONTROL), ("<unused99>", CONTROL)]
    special += [("\n", USER_DEFINED), ("▁▁", USER_DEFINED), ("▁▁▁", USER_DEFINED), ("<b>", USER_DEFINED)]
    special += [(f"<0x{i:02X}>", BYTE) for i in range(256)]
    merged = ["he", "el", "▁h", "ll", "llo", "hello", "▁he", "▁hello", "혈압", "▁혈압", "고혈압", "▁a", "ab", "▁ab"]
    letters = ["▁", *"abcdehlo", "고", "혈", "압", "당", "<", ">", "0", "x", "A"]
    normal = merged + letters
    return Vocabulary(
        pieces=(*(p for p, _ in special), *normal),
        scores=(*(0.0 for _ in special), *(-float(i) for i in range(len(normal)))),
        types=(*(t for _, t in special), *(NORMAL for _ in normal)),
    )


@pytest.fixture(scope="session")
def vocabulary() -> Vocabulary:
    return _vocabulary()


@pytest.fixture(scope="session")
def make_folder() -> MakeFolder:
    """Write a folder; `rows` of the matrices and every setting of the configuration can be chosen."""
    import torch
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    def make(folder: Path, *, tied: bool = True, rows: int | None = None, **settings: object) -> Path:
        table = _vocabulary()
        shape = {
            "vocab_size": rows or len(table),
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 2,
            "num_key_value_heads": 1,
            "head_dim": 32,
            "query_pre_attn_scalar": 32,
            "sliding_window": 64,
            "max_position_embeddings": 512,
            "tie_word_embeddings": tied,
            "initializer_range": 0.3,
        }
        torch.manual_seed(0)
        model = Gemma3ForCausalLM(Gemma3TextConfig(**(shape | settings)))
        with torch.no_grad():
            for name, weight in model.named_parameters():
                if name.endswith("norm.weight"):
                    weight.normal_(0.0, 0.2)
        model.to(torch.bfloat16).save_pretrained(folder)
        generation = {"bos_token_id": 2, "eos_token_id": [1, 5], "pad_token_id": 0}
        (folder / "generation_config.json").write_text(json.dumps(generation), "utf-8")
        write_tokenizer(table, folder, GEMMA)
        return folder

    return make


@pytest.fixture(scope="session")
def tied_folder(make_folder: MakeFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("tied") / "model")


@pytest.fixture(scope="session")
def untied_folder(make_folder: MakeFolder, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_folder(tmp_path_factory.mktemp("untied") / "model", tied=False)
