"""The base's own chat format: one template for tuning, evaluation and serving; loss on answers only."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tokenizers import Tokenizer

from vocabgraft.corpus.mix import Example
from vocabgraft.errors import ModelError

Message = dict[str, str]


class ChatFormat:
    """Renders messages with the folder's `chat_template.jinja`, sandboxed: a template is somebody's code."""

    def __init__(self, folder: Path) -> None:
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        path = folder / "chat_template.jinja"
        if not path.is_file():
            raise ModelError(f"{folder}: no chat_template.jinja; instruction tuning needs the base's chat format")
        self._template = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True).from_string(
            path.read_text("utf-8")
        )

    def render(self, messages: Sequence[Message], *, bos: str, for_answer: bool) -> str:
        """Text of a conversation; `for_answer` opens the model's turn."""
        return self._template.render(messages=list(messages), bos_token=bos, add_generation_prompt=for_answer)

    def example(self, tokenizer: Tokenizer, bos: str, user: str, answer: str) -> Example:
        """One turn as tokens; only the answer and the mark that ends it are learnt."""
        question = [{"role": "user", "content": user}]
        opening = self.render(question, bos=bos, for_answer=True)
        whole = self.render([*question, {"role": "assistant", "content": answer}], bos=bos, for_answer=False)
        if not whole.startswith(opening):
            raise ModelError("the chat template renders an answered question differently from an open one")
        first = tokenizer.encode(opening, add_special_tokens=False).ids
        rest = tokenizer.encode(whole.removeprefix(opening).rstrip("\n"), add_special_tokens=False).ids
        return Example((*first, *rest), (*(False for _ in first), *(True for _ in rest)))

    def opening(self, tokenizer: Tokenizer, bos: str, user: str) -> list[int]:
        """Ids up to where the model is to answer."""
        text = self.render([{"role": "user", "content": user}], bos=bos, for_answer=True)
        return tokenizer.encode(text, add_special_tokens=False).ids
