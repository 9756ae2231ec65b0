"""Part what a model thinks from what it answers.

Some models write their thoughts first, between two pieces of their own, and then the answer:

    <unused94>thought
    Is this ... <unused95>Blood pressure is ...        MedGemma
    <think>Is this ...</think>Blood pressure is ...    Qwen and others

OpenAI-compatible servers give the first part as `reasoning_content`, beside `content`; so does ours, whatever the
engine. Only a mark at the very beginning counts: an answer may well speak of `<think>`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

MARKERS = (("<unused94>", "<unused95>"), ("<think>", "</think>"))
_LABEL = "thought"  # MedGemma writes it after its mark


class Splitter:
    """Takes an answer bit by bit, gives each bit back as (thought, answer). `end` gives what was held back."""

    def __init__(self) -> None:
        self._state = "start"
        self._held = ""
        self._close = ""

    def add(self, text: str) -> tuple[str, str]:
        """The next bit; what could still turn out to be part of a mark is held back."""
        self._held += text
        thought = answer = ""
        if self._state == "start":
            self._open()
        if self._state == "label":
            self._drop_label()
        if self._state == "thought":
            thought, found, rest = self._held.partition(self._close)
            if found:
                self._state, self._held = "gap", rest
            else:
                held = _overlap(thought, self._close)
                thought, self._held = thought[: len(thought) - held], thought[len(thought) - held :]
        if self._state == "gap":
            self._held = self._held.lstrip()
            self._state = "answer" if self._held else "gap"
        if self._state == "answer":
            answer, self._held = self._held, ""
        return thought, answer

    def end(self) -> tuple[str, str]:
        """What is left when nothing more comes. A thought that never ended is a thought."""
        held, self._held = self._held, ""
        return (held, "") if self._state in ("label", "thought") else ("", held)

    def _open(self) -> None:
        seen = self._held.lstrip()
        for mark, close in MARKERS:
            if seen.startswith(mark):
                self._state, self._close, self._held = "label", close, seen.removeprefix(mark)
                return
        if not any(mark.startswith(seen) for mark, _ in MARKERS):
            self._state = "answer"

    def _drop_label(self) -> None:
        seen = self._held.lstrip()
        if seen.startswith(_LABEL + "\n"):
            self._held = seen.removeprefix(_LABEL + "\n")
        elif (_LABEL + "\n").startswith(seen):
            return
        self._state = "thought"


def _overlap(text: str, mark: str) -> int:
    """How many letters at the end of `text` may be the beginning of `mark`."""
    return next((n for n in range(min(len(mark) - 1, len(text)), 0, -1) if text.endswith(mark[:n])), 0)


def split(text: str) -> tuple[str, str]:
    """(thought, answer) of a whole text."""
    splitter = Splitter()
    first, last = splitter.add(text), splitter.end()
    return (first[0] + last[0]).strip(), first[1] + last[1]


def part_reply(reply: dict[str, Any]) -> dict[str, Any]:
    """A chat completion with the thought of each choice under `reasoning_content`."""
    for choice in reply.get("choices", []):
        message = choice.get("message", {})
        thought, answer = split(message.get("content") or "")
        if thought:
            message.update(content=answer, reasoning_content=thought)
    return reply


def part_events(events: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    """The events of a streamed chat completion, each delta parted; what was held back comes with the last one."""
    splitters: dict[int, Splitter] = {}
    for event in events:
        for choice in event.get("choices", []):
            delta = choice.setdefault("delta", {})
            splitter = splitters.setdefault(choice.get("index", 0), Splitter())
            thought, answer = splitter.add(delta.pop("content", None) or "")
            if choice.get("finish_reason"):
                thought, answer = (a + b for a, b in zip((thought, answer), splitter.end(), strict=True))
            if thought:
                delta["reasoning_content"] = thought
            if answer or "role" in delta:
                delta["content"] = answer
        yield event
