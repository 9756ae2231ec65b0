"""Candidates: runs of base pieces of one script, in every family; the classic method beside."""

from __future__ import annotations

import pytest
import regex
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from vocabgraft.corpus.script import script_pattern
from vocabgraft.errors import TokenizerError
from vocabgraft.models.random_gemma3 import gemma_style_vocabulary
from vocabgraft.tokenizer.boundary import line_rule, word_rule
from vocabgraft.tokenizer.count import WordCounts, count_words, token_counts
from vocabgraft.tokenizer.curve import curve, knee
from vocabgraft.tokenizer.spelling import bytes_of
from vocabgraft.tokenizer.train import _completions, train_pieces
from vocabgraft.tokenizer.train_sentencepiece import train_sentencepiece
from vocabgraft.tokenizer.vocabulary import write_json

HANGUL = script_pattern("Hangul")
ENGLISH = "the patient takes the tablets every day and the doctor sees the patient again"
KOREAN = (
    "환자는 혈압약을 먹는다. 환자가 혈압약을 끊었다. 혈압이 높은 환자는 의사와 상의한다. "
    "고혈압 환자의 혈압 3명은 히스타민 힘줄 한국 환자에게 혈압약을 준다.\n당뇨병 환자는 혈당을 잰다 "
) * 4
LETTERS = gemma_style_vocabulary(["\n".join(sorted(set(KOREAN)))], free_slots=200)


@pytest.fixture(scope="module")
def level() -> Tokenizer:
    tok = Tokenizer(models.BPE())
    tok.pre_tokenizer, tok.decoder = pre_tokenizers.ByteLevel(add_prefix_space=False), decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    tok.train_from_iterator([ENGLISH] * 3, trainers.BpeTrainer(vocab_size=300, initial_alphabet=alphabet))
    return tok


@pytest.fixture(scope="module")
def korean_base(tmp_path_factory) -> Tokenizer:
    """A base that has the letters of the corpus, as Gemma has, but no words."""
    path = tmp_path_factory.mktemp("letters") / "tokenizer.json"
    write_json(LETTERS, path)
    return Tokenizer.from_file(str(path))


def count(tokenizer: Tokenizer, text: str = KOREAN) -> WordCounts:
    return count_words([text], word_rule(tokenizer))


def train(tokenizer: Tokenizer, size: int = 40, **more):
    return train_pieces(tokenizer, count(tokenizer), script=HANGUL, size=size, min_count=2, **more)


def test_pieces_are_runs_of_base_pieces_of_the_script(korean_base):
    for candidate in train(korean_base):
        assert (
            "".join(korean_base.id_to_token(i) for i in candidate.parts) == candidate.piece == "".join(candidate.merge)
        )
        assert regex.fullmatch(rf"▁?(?:{HANGUL.pattern})+", candidate.piece)


def test_a_smaller_run_is_a_prefix_and_counts_fall(korean_base):
    found = train(korean_base)
    assert train(korean_base, 7) == found[:7]
    assert [c.count for c in found] == sorted((c.count for c in found), reverse=True)


def test_no_space_inside_unless_asked_for(korean_base):
    assert not any("▁" in c.piece[1:] for c in train(korean_base))
    lines = count_words([KOREAN], line_rule())
    across = train_pieces(korean_base, lines, script=HANGUL, size=60, min_count=2, cross_word=True)
    assert any("▁" in c.piece[1:] for c in across)


def test_byte_level_cannot_cross_words(level):
    with pytest.raises(TokenizerError, match="cross_word"):
        train(level, cross_word=True)


def test_byte_level_pieces_occur_in_the_script_alone(level):
    found = train(level, 200)
    texts = [bytes_of(c.piece).decode("utf-8", "replace") for c in found]
    assert any(len(t) > 1 and "\ufffd" not in t for t in texts), "whole words are learnt"
    for candidate in found:
        raw = bytes_of(candidate.piece).removeprefix(b" ")
        start = raw.decode("utf-8", "ignore")
        assert all(HANGUL.match(c) for c in start)
        rest = raw[len(start.encode()) :]
        assert all(HANGUL.match(c) or regex.match(r"\p{Cn}", c) for c in (_completions(rest) if rest else []))
        assert raw[0] >= 0xC0


def test_letters_whose_first_bytes_are_shared_with_unassigned_ones_are_learnt(level):
    """힘 is ED 9E 98: ED 9E also begins U+D7A4, which is no letter."""
    learnt = {bytes_of(c.piece).decode("utf-8", "ignore").strip() for c in train(level, 400)}
    assert any("힘" in t or "히" in t for t in learnt)


def test_a_corpus_without_the_script(korean_base):
    with pytest.raises(TokenizerError, match=r"data\.script"):
        train_pieces(korean_base, WordCounts.of({" day": 5}), script=HANGUL, size=5, min_count=1)


def test_the_curve_is_what_training_counted(korean_base):
    found = train(korean_base)
    assert curve(korean_base, found, count(korean_base), HANGUL, cross_word=False).tolist() == [c.count for c in found]


@given(parts=st.lists(st.sampled_from(["혈압", "환자는", " 혈압약을", " 3명", "day ", "\n"]), max_size=30))
@settings(max_examples=50, deadline=None)
def test_the_curve_is_what_the_tokenizer_does(korean_base, expanded, parts):
    counts = WordCounts.of({"".join(parts): 3})
    saved = curve(korean_base, expanded[0], counts, HANGUL, cross_word=False).sum()
    assert token_counts(korean_base, counts).sum() - saved == token_counts(expanded[1], counts).sum()


@pytest.fixture(scope="module")
def expanded(korean_base, tmp_path_factory):
    """Candidates, and the tokenizer that has them."""
    found = train(korean_base, 20)
    return found, with_pieces(korean_base, [c.piece for c in found], tmp_path_factory.mktemp("curve"))


def with_pieces(base: Tokenizer, pieces: list[str], folder) -> Tokenizer:
    free = [i for i, p in enumerate(LETTERS.pieces) if p.startswith("<unused")]
    write_json(LETTERS.put(free[: len(pieces)], pieces), folder / "tokenizer.json")
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_the_knee():
    assert knee([]) == 0
    assert knee([5, 5, 5]) == 1
    assert knee([100, 80, 5, 4, 3, 2, 1]) == 2


def test_sentencepiece_pieces_hold_the_script_alone(korean_base):
    found = train_sentencepiece(korean_base, count(korean_base), script=HANGUL, size=30, min_count=2)
    assert found
    known = korean_base.get_vocab()
    for candidate in found:
        assert candidate.piece not in known
        assert regex.fullmatch(rf"▁?(?:{HANGUL.pattern})+", candidate.piece)
        assert "".join(korean_base.id_to_token(i) for i in candidate.parts) == candidate.piece
    assert found == train_sentencepiece(korean_base, count(korean_base), script=HANGUL, size=30, min_count=2)


def test_sentencepiece_is_not_for_byte_level(level):
    with pytest.raises(TokenizerError, match="continued-bpe"):
        train_sentencepiece(level, count(level), script=HANGUL, size=30, min_count=2)
