"""Random decoders of 2 layers as real folders, in a second: Gemma 3 with a hand-made vocabulary, and other families."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

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


LLAMA3_ROPE = {
    "rope_type": "llama3",
    "rope_theta": 500_000.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
# name -> (tokenizer of tests/tokenizer/families.py, model_type, what its configuration has beside the common shape)
DECODERS: dict[str, tuple[str, str, dict[str, object]]] = {
    "smollm2": ("write_smollm2", "llama", {"tie_word_embeddings": True}),
    "llama3": ("write_llama3", "llama", {"tie_word_embeddings": False, "rope_parameters": LLAMA3_ROPE}),
    "llama2": ("write_llama2", "llama", {"tie_word_embeddings": False, "head_dim": 32}),
    "mistral": ("write_llama2", "mistral", {"tie_word_embeddings": False, "sliding_window": None}),
    "qwen2": ("write_qwen", "qwen2", {"tie_word_embeddings": True}),
    "qwen3": ("write_qwen", "qwen3", {"tie_word_embeddings": False, "head_dim": 32}),
}


@pytest.fixture(scope="session")
def make_decoder(families: ModuleType, korean: tuple[str, ...], english: tuple[str, ...]) -> MakeFolder:
    """Write a folder of one of DECODERS, with other settings; matrices have 7 rows more than there are tokens."""
    import torch
    from transformers import CONFIG_MAPPING, AutoModelForCausalLM

    from vocabgraft.tokenizer.measure import load_tokenizer

    def make(folder: Path, name: str, *, seed: int = 0, **settings: object) -> Path:
        write, kind, own = DECODERS[name]
        getattr(families, write)(folder, [*english[:40], *korean[:40:3]])
        shape = {
            "vocab_size": max(load_tokenizer(folder).get_vocab().values()) + 8,
            "hidden_size": 64,
            "intermediate_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "num_key_value_heads": 2,
            "max_position_embeddings": 512,
            "initializer_range": 0.15,
        }
        torch.manual_seed(seed)
        model = AutoModelForCausalLM.from_config(CONFIG_MAPPING[kind](**(shape | own | settings)))
        with torch.no_grad():
            for parameter, values in model.named_parameters():
                if "norm" in parameter:
                    values.normal_(1.0, 0.2)
                if parameter.endswith("bias"):
                    values.normal_(0.0, 0.3)
        model.to(torch.bfloat16).save_pretrained(folder)
        return folder

    return make


@pytest.fixture(scope="session")
def decoder(make_decoder: MakeFolder, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """The folder of one of DECODERS; made when first asked for. Do not write into it."""
    root, made = tmp_path_factory.mktemp("decoders"), {}

    def get(name: str) -> Path:
        if name not in made:
            made[name] = make_decoder(root / name, name)
        return made[name]

    return get
