"""Side by side: what each answer cost, and the tokens it was cut into."""

from __future__ import annotations

import pytest

from vocabgraft.deployment.comparison import ask_side, token_texts
from vocabgraft.tokenizer.measure import load_tokenizer


class Scripted:
    """A server that answers what it was told to."""

    def chat(self, messages: list[dict[str, str]], *, max_tokens: int) -> dict:
        self.messages, self.most = messages, max_tokens
        return {"text": "고혈압입니다.", "reasoning": "음", "tokens": 9, "seconds": 2.0}


def test_the_chips_of_a_text_spell_it_and_are_its_tokens(tied_world) -> None:
    before, after = load_tokenizer(tied_world.base), load_tokenizer(tied_world.tokenizer)
    for text in (tied_world.korean[0], tied_world.english[0], "a  b\n\n고혈압", ""):
        for tokenizer in (before, after):
            chips = token_texts(tokenizer, text)
            assert "".join(chips) == text
            assert len(chips) == len(tokenizer.encode(text, add_special_tokens=False).ids)
    text = tied_world.korean[0]
    assert len(token_texts(after, text)) < len(token_texts(before, text))


def test_a_letter_of_several_tokens_is_shown_by_their_names(tied_world) -> None:
    chips = token_texts(load_tokenizer(tied_world.base), "a😀b")
    assert chips == ["a", "<0xF0>", "<0x9F>", "<0x98>", "<0x80>", "b"]


def test_byte_level_tokens_are_shown_as_text(tmp_path) -> None:
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    letters = pre_tokenizers.ByteLevel.alphabet()
    tokenizer = Tokenizer(models.BPE({c: i for i, c in enumerate(sorted(letters))}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    assert token_texts(tokenizer, "a b") == ["a", " ", "b"]
    assert len(token_texts(tokenizer, "압")) == 3


def test_a_side_counts_letters_tokens_and_time(tied_world) -> None:
    server, asked = Scripted(), [{"role": "user", "content": "왜?"}]
    side = ask_side(server, load_tokenizer(tied_world.base), "base", asked, max_tokens=12)
    assert (server.messages, server.most) == (asked, 12)
    assert (side.tokens, side.characters, side.reasoning) == (9, 7, "음")
    assert side.characters_per_second == pytest.approx(3.5)
    assert "".join(side.as_json()["chips"]) == "고혈압입니다."
