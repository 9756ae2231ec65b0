"""Thoughts are parted from answers however the text is cut into bits."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocabgraft.deployment.thinking import Splitter, part_events, part_reply, split

MEDGEMMA = "<unused94>thought\nIs it <3?\nYes.<unused95>\n\n혈압을 재세요."
WRITTEN = [
    (MEDGEMMA, "Is it <3?\nYes.", "혈압을 재세요."),
    ("<think>가나</think>다", "가나", "다"),
    (" \n<unused94>thought<unused95>답", "thought", "답"),
    ("<unused94>thoughts matter<unused95>답", "thoughts matter", "답"),
    ("<unused94>thought\nnever ended", "never ended", ""),
    ("<unused94>tho", "tho", ""),
    ("plain answer", "", "plain answer"),
    ("  indented", "", "  indented"),
    ("use <think> in a template", "", "use <think> in a template"),
    ("<unused9", "", "<unused9"),
    ("<think></think>", "", ""),
    ("", "", ""),
]


@pytest.mark.parametrize(("text", "thought", "answer"), WRITTEN)
def test_a_text_is_parted_at_its_marks(text: str, thought: str, answer: str) -> None:
    assert split(text) == (thought, answer)


@given(
    text=st.lists(
        st.sampled_from(["<unused94>", "<unused95>", "thought\n", "<think>", "</think>", "<", "답", " ", "\n"])
    ).map("".join),
    cuts=st.lists(st.integers(0, 60), max_size=12),
)
def test_where_a_stream_is_cut_changes_nothing(text: str, cuts: list[int]) -> None:
    at = sorted({0, len(text), *(c for c in cuts if c < len(text))})
    splitter = Splitter()
    bits = [splitter.add(text[a:b]) for a, b in itertools.pairwise(at)] + [splitter.end()]
    thought, answer = ("".join(part) for part in zip(*bits, strict=True))
    assert (thought.strip(), answer) == split(text)


def test_an_answer_is_not_held_back_longer_than_it_must_be() -> None:
    splitter = Splitter()
    assert splitter.add("혈") == ("", "혈")
    assert splitter.add("<unused94>") == ("", "<unused94>"), "marks count only at the beginning"


def test_a_reply_gets_its_thought_beside_its_content() -> None:
    reply = part_reply({"choices": [{"message": {"role": "assistant", "content": MEDGEMMA}}]})
    assert reply["choices"][0]["message"] == {
        "role": "assistant",
        "content": "혈압을 재세요.",
        "reasoning_content": "Is it <3?\nYes.",
    }
    plain = {"choices": [{"message": {"content": "답"}}]}
    assert part_reply(plain) == {"choices": [{"message": {"content": "답"}}]}
    assert part_reply({"error": {"message": "no"}}) == {"error": {"message": "no"}}


def test_events_carry_both_parts_and_end_with_what_was_held_back() -> None:
    def events():
        yield {"choices": [{"delta": {"role": "assistant", "content": ""}, "finish_reason": None}]}
        for bit in ("<unused", "94>thou", "ght\n생각<", "unused95", ">답 <"):
            yield {"choices": [{"delta": {"content": bit}, "finish_reason": None}]}
        yield {"choices": [{"delta": {}, "finish_reason": "stop"}]}
        yield {"choices": [], "usage": {"completion_tokens": 7}}

    seen = list(part_events(events()))
    deltas = [c["delta"] for e in seen for c in e["choices"]]
    assert "".join(d.get("reasoning_content", "") for d in deltas) == "생각"
    assert "".join(d.get("content", "") for d in deltas) == "답 <"
    assert seen[-1]["usage"] == {"completion_tokens": 7}
