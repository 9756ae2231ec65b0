"""A small random model of the real Gemma 3 shape, with a Gemma-style tokenizer: for tests and for `tiny-cpu`.

Same architecture class, same tokenizer files, same special pieces and `<unused>` slots as the real thing, only
small and untrained. It proves plumbing, never quality.
"""

from __future__ import annotations

import io
import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from vocabgraft.models.chat_templates import GEMMA
from vocabgraft.tokenizer.vocabulary import (
    BYTE,
    CONTROL,
    NORMAL,
    SPACE,
    UNKNOWN,
    USER_DEFINED,
    Vocabulary,
    write_tokenizer,
)


@dataclass(frozen=True)
class TinyShape:
    """Sizes of the random model."""

    hidden: int = 64
    layers: int = 2
    heads: int = 2
    kv_heads: int = 1
    head_dim: int = 32
    intermediate: int = 128


def gemma_style_vocabulary(texts: Iterable[str], *, normal: int = 1200, free_slots: int = 400) -> Vocabulary:
    """A BPE vocabulary laid out like Gemma's: specials, turns, newline and space runs, bytes, pieces, free slots."""
    rows: list[tuple[str, float, int]] = [(p, 0.0, CONTROL) for p in ("<pad>", "<eos>", "<bos>")]
    rows += [("<unk>", 0.0, UNKNOWN), ("<mask>", 0.0, CONTROL)]
    rows += [(f"<unused{i}>", 0.0, CONTROL) for i in range(99)]
    rows += [("<start_of_turn>", 0.0, CONTROL), ("<end_of_turn>", 0.0, CONTROL)]
    rows += [("\n" * n, 0.0, USER_DEFINED) for n in range(1, 5)]
    rows += [(SPACE * n, 0.0, USER_DEFINED) for n in range(2, 9)]
    rows += [(f"<0x{b:02X}>", 0.0, BYTE) for b in range(256)]
    rows += [(piece, -float(rank), NORMAL) for rank, piece in enumerate(_bpe_pieces(texts, normal))]
    rows += [(f"<unused{99 + i}>", 0.0, CONTROL) for i in range(free_slots)]
    pieces, scores, types = zip(*rows, strict=True)
    return Vocabulary(pieces, scores, types)


def _bpe_pieces(texts: Iterable[str], size: int) -> list[str]:
    import sentencepiece

    model = io.BytesIO()
    lines = (line for text in texts for line in text.splitlines() if line)
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=lines,
        model_writer=model,
        model_type="bpe",
        vocab_size=size + 259,
        byte_fallback=True,
        character_coverage=0.9995,
        normalization_rule_name="identity",
        add_dummy_prefix=False,
        remove_extra_whitespaces=False,
        split_digits=True,
        num_threads=1,
        minloglevel=2,
        hard_vocab_limit=False,
    )
    processor = sentencepiece.SentencePieceProcessor(model_proto=model.getvalue())
    ids = range(processor.get_piece_size())
    return [processor.id_to_piece(i) for i in ids if not (processor.is_control(i) or processor.is_byte(i) or i == 0)]


def write_random_gemma3(
    out: Path, texts: Iterable[str], *, seed: int, tied: bool = True, shape: TinyShape | None = None
) -> None:
    """Write a Hugging Face folder with random bf16 weights; the same seed gives the same bytes."""
    import torch
    from safetensors.torch import save
    from transformers import Gemma3ForCausalLM, Gemma3TextConfig

    shape = shape or TinyShape()
    vocabulary = gemma_style_vocabulary(texts)
    config = Gemma3TextConfig(
        vocab_size=len(vocabulary),
        hidden_size=shape.hidden,
        intermediate_size=shape.intermediate,
        num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads,
        num_key_value_heads=shape.kv_heads,
        head_dim=shape.head_dim,
        query_pre_attn_scalar=shape.head_dim,
        sliding_window=64,
        max_position_embeddings=2048,
        tie_word_embeddings=tied,
        rope_parameters={
            "full_attention": {"rope_type": "default", "rope_theta": 1_000_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
        },
    )
    torch.manual_seed(seed)
    model = Gemma3ForCausalLM(config).to(torch.bfloat16)
    out.mkdir(parents=True, exist_ok=True)
    state = {k: v.contiguous() for k, v in model.state_dict().items() if not (tied and k == "lm_head.weight")}
    (out / "model.safetensors").write_bytes(save(state, {"format": "pt"}))
    raw = config.to_dict() | {"architectures": ["Gemma3ForCausalLM"], "dtype": "bfloat16"}
    (out / "config.json").write_text(json.dumps(raw, indent=1), "utf-8")
    write_tokenizer(vocabulary, out, GEMMA)
