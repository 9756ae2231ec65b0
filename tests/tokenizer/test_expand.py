"""New pieces are of one script, are reached, are runs of base tokens, and leave all other text alone."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import example, given
from hypothesis import strategies as st

from vocabgraft.corpus.script import script_pattern
from vocabgraft.errors import TokenizerError
from vocabgraft.tokenizer.count import count_words
from vocabgraft.tokenizer.expand import Expansion, expand_tokenizer
from vocabgraft.tokenizer.measure import (
    changed_ids,
    disagreements,
    encode,
    fertility,
    load_tokenizer,
    moved_pieces,
    wrong_parts,
)
from vocabgraft.tokenizer.select import select_pieces, unreachable
from vocabgraft.tokenizer.train import Candidate, train_pieces
from vocabgraft.tokenizer.vocabulary import iter_new, read_model, slots

HANGUL = script_pattern("Hangul")
WIKITEXT = [
    " = Valkyria Chronicles III = \n \n Senjō no Valkyria 3 : <unk> Chronicles ( 戦場のヴァルキュリア3 , lit . ) \n",
    " The game 's battle system , the @-@ Blitz system , sold 1 @,@ 080 @.@ 5 units . \n",
    "def f(x):\n        return x  # ok\n\n\n",
]
WORD = st.sampled_from(
    ["고혈압", " 혈압이", " 있습니다", "환자는", "the", " patient", "15mg", "😀", " ", "   ", "\n", "\t", "."]
)
SYLLABLE = st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3)
TEXT = st.lists(WORD | SYLLABLE | st.characters(codec="utf-8", exclude_characters="▁"), max_size=25).map("".join)


@pytest.fixture(scope="module")
def pair(tied_world):
    return load_tokenizer(tied_world.base), load_tokenizer(tied_world.tokenizer)


@pytest.fixture(scope="module")
def counts(korean) -> Counter[str]:
    return count_words(korean, HANGUL)


def learn(base: Path, counts: Counter[str], size: int = 300, min_count: int = 2) -> list[Candidate]:
    return train_pieces(load_tokenizer(base), counts, script=HANGUL, size=size, min_count=min_count)


def test_every_new_piece_is_reached_in_both_files(tied_world, pair) -> None:
    found = tied_world.expansion
    assert len(found.pieces) == 200
    assert unreachable(pair[1], found.pieces) == []
    model = sentencepiece.SentencePieceProcessor(model_file=str(tied_world.tokenizer / "tokenizer.model"))
    spelled = [model.encode(p.replace("▁", " ")) for p in found.pieces]
    assert spelled == [[i] for i in found.ids]


def test_new_pieces_hold_only_letters_of_the_script(tied_world) -> None:
    others = [p for p in tied_world.expansion.pieces if not HANGUL.fullmatch(p.removeprefix("▁")[:1])]
    others += [p for p in tied_world.expansion.pieces if not all(map(HANGUL.fullmatch, p.removeprefix("▁")))]
    assert others == []


def test_parts_are_how_the_base_spells_a_piece(tied_world, pair) -> None:
    base = read_model(tied_world.base / "tokenizer.model")
    found = tied_world.expansion
    assert wrong_parts(pair[0], found.pieces, found.parts) == []
    assert ["".join(base.pieces[i] for i in p) for p in found.parts] == list(found.pieces)
    assert min(map(len, found.parts)) >= 2


def test_new_pieces_take_unused_slots_and_move_nothing(tied_world) -> None:
    base, expanded = (read_model(f / "tokenizer.model") for f in (tied_world.base, tied_world.tokenizer))
    found = tied_world.expansion
    taken = [int(base.pieces[i].removeprefix("<unused").removesuffix(">")) for i in found.ids]
    assert taken == list(range(99, 299))
    assert len(base) == len(expanded)
    assert moved_pieces(base, expanded, found.ids) == []
    assert list(iter_new(base, expanded)) == list(zip(found.ids, found.pieces, strict=True))


def test_uses_are_counted_on_the_words_themselves(tied_world, pair, counts) -> None:
    seen = Counter(i for word, n in counts.items() for i in encode(pair[1], [word])[0] for _ in range(n))
    assert [seen[i] for i in tied_world.expansion.ids] == list(tied_world.expansion.uses)


def test_tokens_of_texts_follow_from_tokens_of_their_words(tied_world, pair) -> None:
    seen = Counter(i for ids in encode(pair[1], tied_world.korean) for i in ids)
    assert [seen[i] for i in tied_world.expansion.ids] == list(tied_world.expansion.uses)


def test_korean_gets_shorter_and_english_stays(tied_world, pair) -> None:
    before, after = (fertility(t, tied_world.korean) for t in pair)
    assert after.tokens < 0.95 * before.tokens
    assert (after.words, after.bytes) == (before.words, before.bytes)
    assert changed_ids(*pair, tied_world.english) == 0


def test_text_without_the_script_keeps_its_ids(pair) -> None:
    ascii_texts = [
        "".join(map(chr, range(128))),
        *map(chr, range(128)),
        *(a + b for a in " a\n" for b in map(chr, range(128))),
    ]
    assert changed_ids(*pair, [*ascii_texts, *WIKITEXT]) == 0


@given(text=st.text(st.characters(codec="utf-8")))
@example("  中文 日本語カタカナ ünïcödé \u0000 ")
def test_any_text_without_the_script_keeps_its_ids(pair, text: str) -> None:
    assert changed_ids(*pair, [HANGUL.sub("", text)]) == 0


def test_changed_ids_are_counted(pair) -> None:
    assert changed_ids(*pair, ["환자의 혈압이 높은 경우"]) > 0


@given(text=TEXT)
def test_every_token_is_a_run_of_base_tokens(tied_world, pair, text: str) -> None:
    base, expanded = (encode(t, [text])[0] for t in pair)
    parts = dict(zip(tied_world.expansion.ids, tied_world.expansion.parts, strict=True))
    assert [part for i in expanded for part in parts.get(i, (i,))] == base


def test_a_smaller_size_gives_the_beginning_of_a_larger(tied_world, counts) -> None:
    large = learn(tied_world.base, counts, 300)
    for size in (1, 17, 150):
        small = learn(tied_world.base, counts, size)
        assert len(small) >= size
        assert small == large[: len(small)]


def test_rare_pairs_are_not_learnt(tied_world, counts) -> None:
    assert learn(tied_world.base, counts, min_count=10**6) == []
    frequent, rare = (learn(tied_world.base, counts, 10_000, n) for n in (6, 3))
    assert 0 < len(frequent) < len(rare)
    assert frequent == rare[: len(frequent)]


def test_a_literal_space_mark_inside_a_word_does_not_get_into_a_piece(tied_world) -> None:
    learnt = learn(tied_world.base, Counter({" 혈▁압": 50, "환▁자▁의": 50}))
    assert [c.piece for c in learnt if "▁" in c.piece[1:]] == []


@pytest.mark.parametrize("texts", [[], ["only English here", "123 456"], ["혈 압 을"]])
def test_a_corpus_without_words_to_learn_from_is_refused(tied_world, texts: list[str]) -> None:
    counts = count_words(texts, HANGUL) if texts != ["혈 압 을"] else Counter({"혈": 3})
    with pytest.raises(TokenizerError, match="no word of the target script"):
        learn(tied_world.base, counts)


def test_words_are_counted_with_the_space_before_them() -> None:
    counts = count_words(["혈압 혈압이\n혈압", "no  혈압  x", ""], HANGUL)
    assert counts == {"혈압": 2, " 혈압이": 1, " 혈압": 1}


def test_selection_says_what_it_left_out(tied_world, counts) -> None:
    base = read_model(tied_world.base / "tokenizer.model")
    candidates = learn(tied_world.base, counts, 30)
    known = next(p for p in base.pieces if len(p) > 1 and all(map(HANGUL.fullmatch, p)))
    lonely = Candidate("뷁뷁", (1, 2))  # the base has no such syllable: nothing merges into it
    chosen = select_pieces(base, [Candidate(known, ()), lonely, *candidates], counts, limit=21, reserved_slots=99)
    assert list(chosen.pieces) == candidates[:20]
    assert chosen.dropped == {
        "already a base piece": [known],
        "unreachable": ["뷁뷁"],
        "no room": [c.piece for c in candidates[20:]],
    }
    assert len(chosen.uses) == 20
    assert min(chosen.uses) > 0


def test_no_more_is_selected_than_there_are_slots(tied_world, counts) -> None:
    base = read_model(tied_world.base / "tokenizer.model")
    candidates = learn(tied_world.base, counts, 600)
    chosen = select_pieces(base, candidates, counts, limit=10_000, reserved_slots=489)
    assert len(chosen.pieces) == len(slots(base, 489)) == 10


def test_more_pieces_than_slots_are_refused(tied_world, tmp_path: Path) -> None:
    pieces = [Candidate(p, ()) for p in tied_world.expansion.pieces]
    with pytest.raises(TokenizerError, match="200 pieces for 10 free <unused> slots"):
        expand_tokenizer(tied_world.base, pieces, [1] * 200, tmp_path / "out", reserved_slots=489)
    assert not (tmp_path / "out").exists()


def test_a_stale_name_of_a_slot_is_taken_out_of_the_configuration(tied_world, counts, tmp_path: Path) -> None:
    from transformers import AutoTokenizer

    base = tmp_path / "base"
    shutil.copytree(tied_world.base, base)
    first, *_, last = slots(read_model(base / "tokenizer.model"))
    config = json.loads((base / "tokenizer_config.json").read_text("utf-8"))
    config["added_tokens_decoder"] = {
        str(i): {
            "content": name,
            "special": True,
            "normalized": False,
            "lstrip": False,
            "rstrip": False,
            "single_word": False,
        }
        for i, name in ((2, "<bos>"), (first, "<unused99>"), (last, "<unused498>"))
    }
    (base / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    chosen = learn(base, counts, 20)[:20]
    expand_tokenizer(base, chosen, [1] * 20, tmp_path / "out")
    after = json.loads((tmp_path / "out/tokenizer_config.json").read_text("utf-8"))
    assert set(after["added_tokens_decoder"]) == {"2", str(last)}
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "out")
    assert tokenizer.convert_ids_to_tokens(first) == chosen[0].piece
    assert len(tokenizer) == len(read_model(base / "tokenizer.model"))


def test_the_folder_holds_tokenizer_files_only_and_both_agree(tied_world) -> None:
    names = {p.name for p in tied_world.tokenizer.iterdir()} - {"expansion.json"}
    assert names == {"tokenizer.model", "tokenizer.json", "tokenizer_config.json", "chat_template.jinja"}
    assert disagreements(tied_world.tokenizer, WIKITEXT) == []


def test_an_expansion_is_read_back(tied_world, tmp_path: Path) -> None:
    tied_world.expansion.save(tmp_path / "expansion.json")
    assert Expansion.load(tmp_path / "expansion.json") == tied_world.expansion


def test_a_token_that_only_tokenizer_json_knows_keeps_its_id(tied_world, tmp_path: Path) -> None:
    """Gemma 3 4B adds `<image_soft_token>` after the SentencePiece vocabulary; a moved one masks text as an image."""
    base = shutil.copytree(tied_world.base, tmp_path / "base")
    tokenizer = load_tokenizer(base)
    image = tokenizer.get_vocab_size()
    tokenizer.add_special_tokens(["<image_soft_token>"])
    tokenizer.save(str(base / "tokenizer.json"))
    piece = Candidate(tied_world.expansion.pieces[0], tied_world.expansion.parts[0])
    expand_tokenizer(base, [piece], [1], tmp_path / "out")
    assert load_tokenizer(tmp_path / "out").token_to_id("<image_soft_token>") == image
