"""Base and adapted model side by side: the same question, the same engine and format, what each answer cost."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from tokenizers import Tokenizer

from vocabgraft.deployment.client import Client


@dataclass(frozen=True)
class Side:
    """One model's answer. `tokens` were generated, thoughts and end mark included; `chips` are the answer's own tokens,
    as its tokenizer cuts it."""

    model: str
    text: str
    reasoning: str
    tokens: int
    characters: int
    seconds: float
    chips: tuple[str, ...]

    @property
    def characters_per_second(self) -> float:
        """Of the answer, first token's wait included."""
        return self.characters / self.seconds if self.seconds else 0.0

    def as_json(self) -> dict[str, Any]:
        """Plain JSON types."""
        return asdict(self) | {"characters_per_second": round(self.characters_per_second, 1)}


def ask_side(
    server: Client, tokenizer: Tokenizer, name: str, messages: Sequence[dict[str, str]], *, max_tokens: int
) -> Side:
    """One model's answer to a conversation, greedily, and what it cost."""
    reply = server.chat(list(messages), max_tokens=max_tokens)
    text = reply["text"]
    return Side(
        name, text, reply["reasoning"], reply["tokens"], len(text), round(reply["seconds"], 3),
        tuple(token_texts(tokenizer, text)),
    )  # fmt: skip


def token_texts(tokenizer: Tokenizer, text: str) -> list[str]:
    """The part of `text` that each of its tokens spells; a token that is only some bytes of a letter by its name."""
    encoded = tokenizer.encode(text, add_special_tokens=False)
    found, end = [], 0
    for token, (start, stop) in zip(encoded.tokens, encoded.offsets, strict=True):
        part = text[start:stop]
        whole = start >= end and bool(part) and not (len(part) == 1 and token.startswith("<0x"))
        found.append(part if whole else token)
        end = max(end, stop)
    return found
