"""Words encoded by chunks have the tokens of words encoded whole; only tokenizers that allow it are chunked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocabgraft.tokenizer.chunks import Chunks, can_chunk
from vocabgraft.tokenizer.measure import encode, load_tokenizer

LETTERS = "가힣나환자는혈압이ab1 9.!?\n\t\u3000▁ᄀ\u0301<>/|é中😀\uffff\x00"
WORD = st.text(LETTERS, max_size=14) | st.sampled_from(["<bos>", "<end_of_turn>", " <b>", "환자는", " 혈압이"])


@given(batches=st.lists(st.lists(WORD, min_size=1, max_size=20), min_size=1, max_size=3))
def test_tokens_are_those_of_whole_words(tied_world, batches) -> None:
    for folder in (tied_world.base, tied_world.tokenizer):
        tokenizer = load_tokenizer(folder)
        chunks = Chunks(tokenizer)
        for words in batches:
            ids, lengths = chunks.encode(words)
            whole = encode(tokenizer, words)
            assert ids.tolist() == [i for row in whole for i in row]
            assert lengths.tolist() == [len(row) for row in whole]


def test_fewer_chunks_than_words_are_encoded(tied_world) -> None:
    chunks = Chunks(load_tokenizer(tied_world.base))
    words = sorted({" " + word for text in tied_world.korean for word in text.split()})
    chunks.encode(words)
    assert len(chunks._places) < len(words) / 2


@pytest.mark.parametrize(("family", "fits"), [("gemma", True), ("llama3", False), ("qwen", False), ("smollm2", False)])
def test_a_pattern_that_may_look_across_is_left_alone(make_base, family, fits) -> None:
    assert can_chunk(load_tokenizer(make_base(family)[0])) == fits


def test_without_a_piece_for_each_byte_unknown_letters_may_join_and_words_stay_whole(tied_world) -> None:
    from tokenizers import Tokenizer

    text = (tied_world.base / "tokenizer.json").read_text("utf-8")
    assert can_chunk(Tokenizer.from_str(text))
    assert not can_chunk(Tokenizer.from_str(text.replace('"<0xFE>"', '"<0xfe>"')))
