"""In every family and place: new pieces are reached, are runs of base tokens, move nothing, and both files agree."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Iterator
from itertools import islice, permutations
from pathlib import Path

import pytest
import sentencepiece
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models

from vocabgraft.corpus.script import script_pattern
from vocabgraft.errors import TokenizerError
from vocabgraft.tokenizer.compare import lost_specials, moved_ids, new_pieces, not_coarser, unreachable_pieces
from vocabgraft.tokenizer.expand import Expansion, expand_tokenizer
from vocabgraft.tokenizer.measure import changed_ids, disagreements, encode, fertility, load_tokenizer
from vocabgraft.tokenizer.room import free_ids
from vocabgraft.tokenizer.train import Candidate
from vocabgraft.tokenizer.vocabulary import read_model, rewrite_model, write_json

HANGUL = script_pattern("Hangul")
WIKITEXT = [
    " = Valkyria Chronicles III = \n \n Senjō no Valkyria 3 : <unk> Chronicles ( 戦場のヴァルキュリア3 , lit . ) \n",
    " The game 's battle system , the @-@ Blitz system , sold 1 @,@ 080 @.@ 5 units . \n",
    "def f(x):\n        return x  # ok\n\n\n",
]
CHAT = [
    "<|im_start|>user\nhi<|im_end|>\n",
    "<start_of_turn>user\nhi<end_of_turn>\n",
    "a<|eot_id|>b <image_soft_token> c",
]
CHAT += ["<|start_header_id|>user<|end_header_id|>\n\n<tool_call>{}</tool_call> <|image_pad|> <|endoftext|>"]
WORD = st.sampled_from(
    ["고혈압", " 혈압이", " 있습니다", "환자는", "the", " patient", "15mg", "😀", " ", "   ", "\n", "\t", "."]
)
SYLLABLE = st.characters(min_codepoint=0xAC00, max_codepoint=0xD7A3)
TEXT = st.lists(WORD | SYLLABLE | st.characters(codec="utf-8", exclude_characters="▁"), max_size=25).map("".join)


def pair(expanded) -> tuple[Tokenizer, Tokenizer]:
    return load_tokenizer(expanded.base), load_tokenizer(expanded.out)


def read(path: Path) -> dict:
    return json.loads(path.read_text("utf-8"))


def test_every_new_piece_is_there_and_reached(expanded) -> None:
    base, after = pair(expanded)
    found = expanded.expansion
    assert new_pieces(base, after) == dict(sorted(zip(found.pieces, found.ids, strict=True), key=lambda row: row[1]))
    assert found.pieces == tuple(c.piece for c in expanded.pieces)
    assert unreachable_pieces(after, found.pieces) == []


def test_base_tokens_and_special_ones_keep_their_ids(expanded) -> None:
    base, after = pair(expanded)
    assert moved_ids(base, after) == []
    assert lost_specials(base, after) == []
    kept = {i: repr(t) for i, t in base.get_added_tokens_decoder().items() if i not in expanded.expansion.ids}
    assert {i: repr(t) for i, t in after.get_added_tokens_decoder().items()} == kept
    if expanded.family.image:
        assert after.token_to_id(expanded.family.image) == base.token_to_id(expanded.family.image)


def test_text_without_the_script_keeps_its_ids(expanded, english) -> None:
    ascii_texts = ["".join(map(chr, range(128))), *(a + b for a in " a\n" for b in map(chr, range(128)))]
    assert changed_ids(*pair(expanded), [*ascii_texts, *WIKITEXT, *CHAT, *english[:10]]) == 0


@given(text=TEXT)
@example("  中文 日本語カタカナ ünïcödé \u0000 ")
def test_text_without_a_new_piece_keeps_its_ids(expanded, text: str) -> None:
    base, after = pair(expanded)
    for part in (text, HANGUL.sub("", text)):
        ids = encode(after, [part])[0]
        assert set(ids) & set(expanded.expansion.ids) or ids == encode(base, [part])[0]


@given(text=TEXT)
def test_every_token_is_a_run_of_base_tokens(expanded, text: str) -> None:
    before, after = (encode(t, [text])[0] for t in pair(expanded))
    parts = dict(zip(expanded.expansion.ids, expanded.expansion.parts, strict=True))
    assert [part for i in after for part in parts.get(i, (i,))] == before


def test_korean_gets_shorter(expanded, korean) -> None:
    base, after = pair(expanded)
    assert fertility(after, korean[:30]).tokens < 0.98 * fertility(base, korean[:30]).tokens
    assert not_coarser(base, after, korean[:30]) == []


@given(text=TEXT)
@example("혈압 혈압이 있습니다 <unused99> 환자는")
def test_the_two_files_agree_as_well_as_those_of_the_base(expanded, text: str) -> None:
    if expanded.family.sentencepiece and disagreements(expanded.base, [text]) == []:
        assert disagreements(expanded.out, [text]) == []


def test_a_sentencepiece_base_gets_two_files_that_hold_the_same_pieces(expanded) -> None:
    assert (expanded.out / "tokenizer.model").is_file() == expanded.family.sentencepiece
    if not expanded.family.sentencepiece:
        return
    table = read_model(expanded.out / "tokenizer.model")
    vocab = load_tokenizer(expanded.out).get_vocab(with_added_tokens=True)
    assert {piece: vocab[piece] for piece in table.pieces} == table.ids
    beyond = {t: i for t, i in vocab.items() if i >= len(table)}
    assert all(i < min(expanded.expansion.ids) or i > max(expanded.expansion.ids) for i in beyond.values())
    model = sentencepiece.SentencePieceProcessor(model_file=str(expanded.out / "tokenizer.model"))
    assert [model.piece_to_id(p) for p in expanded.expansion.pieces] == list(expanded.expansion.ids)


def test_appended_pieces_follow_all_ids_and_rows_are_a_multiple_of_64(expanded) -> None:
    found, room = expanded.expansion, free_ids(expanded.base)
    if expanded.place == "slots":
        assert (found.rows, found.ids) == (None, room.free[: len(found.ids)])
        return
    assert found.ids == tuple(range(room.next_id, room.next_id + len(found.ids)))
    assert min(found.ids) > max(load_tokenizer(expanded.base).get_vocab(with_added_tokens=True).values())
    if max(found.ids) < room.rows:
        assert found.rows is None
    else:
        assert found.rows % 64 == 0
        assert max(found.ids) < found.rows <= max(found.ids) + 64


def test_two_builds_are_byte_identical(expanded, tmp_path: Path) -> None:
    expand_tokenizer(expanded.base, expanded.pieces, expanded.expansion.uses, tmp_path / "out", place=expanded.place)
    names = sorted(p.name for p in expanded.out.iterdir())
    assert sorted(p.name for p in (tmp_path / "out").iterdir()) == names
    for name in names:
        assert (tmp_path / "out" / name).read_bytes() == (expanded.out / name).read_bytes(), name


def test_no_file_still_tells_of_the_base_vocabulary(expanded) -> None:
    vocab = load_tokenizer(expanded.out).get_vocab(with_added_tokens=True)
    config = read(expanded.out / "tokenizer_config.json")
    for i, entry in config.get("added_tokens_decoder", {}).items():
        assert vocab[entry["content"]] == int(i)
    assert config.get("vocab_size", len(vocab)) == len(vocab)
    if (expanded.base / "vocab.json").exists():
        assert read(expanded.out / "vocab.json") == read(expanded.out / "tokenizer.json")["model"]["vocab"]
        lines = (expanded.out / "merges.txt").read_text("utf-8").splitlines()[1:]
        assert lines[-len(expanded.pieces) :] == [" ".join(c.merge) for c in expanded.pieces]
    assert not {"config.json", "generation_config.json"} & {p.name for p in expanded.out.iterdir()}


def test_an_expansion_is_read_back(expanded, tmp_path: Path) -> None:
    expanded.expansion.save(tmp_path / "expansion.json")
    assert Expansion.load(tmp_path / "expansion.json") == expanded.expansion
    old = {k: v for k, v in read(tmp_path / "expansion.json").items() if k != "rows"}
    (tmp_path / "expansion.json").write_text(json.dumps(old), "utf-8")
    assert Expansion.load(tmp_path / "expansion.json").rows is None


# -- padded rows and the image token --------------------------------------------------------------------------------


def pairs_of_letters(base: Path) -> Iterator[Candidate]:
    """Pieces of two letters of the base each, whether or not Korean has them."""
    names = load_tokenizer(base).get_vocab()
    letters = sorted(p for p in names if len(p) == 1 and HANGUL.fullmatch(p))
    return (Candidate(a + b, (names[a], names[b]), (a, b)) for a in letters for b in letters if a + b not in names)


def test_when_slots_run_out_padded_rows_are_taken_behind_the_image_token(make_base, tmp_path: Path) -> None:
    base, _ = make_base("gemma-images")
    image = load_tokenizer(base).token_to_id("<image_soft_token>")
    pieces = list(islice(pairs_of_letters(base), 464))
    found = expand_tokenizer(base, pieces[:463], [1] * 463, tmp_path / "out")
    assert found.rows is None
    assert found.ids[400:] == tuple(range(image + 1, image + 64))
    table = read_model(tmp_path / "out/tokenizer.model")
    assert (table.pieces[image], len(table)) == ("<image_soft_token>", image + 64)
    assert load_tokenizer(tmp_path / "out").token_to_id("<image_soft_token>") == image
    texts = ["a <image_soft_token> b", *found.pieces, " ".join(found.pieces)]
    assert disagreements(tmp_path / "out", texts) == []
    with pytest.raises(TokenizerError, match="464 pieces for 400 free slots and 63 free padded rows"):
        expand_tokenizer(base, pieces, [1] * 464, tmp_path / "more")


def test_within_the_slots_the_table_of_pieces_keeps_its_length(make_base, tmp_path: Path) -> None:
    base, pieces = make_base("gemma-images")
    expand_tokenizer(base, pieces[:1], [1], tmp_path / "out")
    assert len(read_model(tmp_path / "out/tokenizer.model")) == len(read_model(base / "tokenizer.model"))


def test_an_old_piece_that_a_new_one_makes_is_reached_in_both_files(make_base, tmp_path: Path) -> None:
    """sentencepiece merges whatever gives a piece; so must the merge list, at the rank of the old piece."""
    base = shutil.copytree(make_base("gemma")[0], tmp_path / "base")
    table = read_model(base / "tokenizer.model")
    letters = [p for p in table.pieces if len(p) == 1 and HANGUL.fullmatch(p)]
    a, b, c = next(t for t in permutations(letters, 3) if not {t[0] + t[1], t[1] + t[2]} & set(table.pieces))
    lonely = table.put([free_ids(base).free[-1]], [a + b + c])
    rewrite_model(base / "tokenizer.model", lonely, base / "tokenizer.model")
    write_json(lonely, base / "tokenizer.json")
    later = next(pairs_of_letters(base))
    pieces = [Candidate(a + b, (table.ids[a], table.ids[b])), later]
    expand_tokenizer(base, pieces, [1, 1], tmp_path / "out")
    assert encode(load_tokenizer(base), [a + b + c]) == [[table.ids[x] for x in (a, b, c)]]
    assert encode(load_tokenizer(tmp_path / "out"), [a + b + c]) == [[lonely.ids[a + b + c]]]
    assert disagreements(tmp_path / "out", [a + b + c, later.piece + a + b + c]) == []


def test_a_hole_below_ids_in_use_stops_pieces_after_it(make_base, tmp_path: Path) -> None:
    original, pieces = make_base("gemma")
    base = shutil.copytree(original, tmp_path / "base")
    config = read(base / "tokenizer_config.json")
    beyond = len(read_model(base / "tokenizer.model")) + 5
    config["added_tokens_decoder"] = {str(beyond): {"content": "<audio_soft_token>", "special": True}}
    (base / "tokenizer_config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(TokenizerError, match=f"ids go up to {beyond}, but {beyond - 5} is no token of tokenizer"):
        expand_tokenizer(base, pieces, [1] * len(pieces), tmp_path / "out", place="append")
    assert not (tmp_path / "out").exists()


# -- files ----------------------------------------------------------------------------------------------------------


def test_a_stale_name_of_a_slot_is_taken_out_of_every_list(make_base, tmp_path: Path) -> None:
    original, pieces = make_base("gemma-images")
    base = shutil.copytree(original, tmp_path / "base")
    first, *_, last = free_ids(base).free
    (base / "added_tokens.json").write_text(json.dumps({"<unused99>": first, "<bos>": 2}), "utf-8")
    found = expand_tokenizer(base, pieces, [1] * len(pieces), tmp_path / "out")
    listed = {int(i) for i in read(base / "tokenizer_config.json")["added_tokens_decoder"]}
    assert {first, 2} < listed
    after = {int(i) for i in read(tmp_path / "out/tokenizer_config.json")["added_tokens_decoder"]}
    assert after == listed - set(found.ids)
    assert read(tmp_path / "out/added_tokens.json") == {"<bos>": 2}
    assert last not in found.ids


def test_templates_and_processor_are_carried_and_weights_are_not(make_base, tmp_path: Path) -> None:
    original, pieces = make_base("gemma-images")
    base = shutil.copytree(original, tmp_path / "base")
    (base / "additional_chat_templates").mkdir()
    (base / "additional_chat_templates/tools.jinja").write_text("{{ bos_token }}", "utf-8")
    (base / "model.safetensors.index.json").write_text("{}", "utf-8")
    (base / "model.safetensors").write_bytes(b"")
    expand_tokenizer(base, pieces[:3], [1] * 3, tmp_path / "out")
    names = {p.relative_to(tmp_path / "out").as_posix() for p in (tmp_path / "out").rglob("*") if p.is_file()}
    assert names == {
        "additional_chat_templates/tools.jinja",
        "chat_template.jinja",
        "processor_config.json",
        "tokenizer.json",
        "tokenizer.model",
        "tokenizer_config.json",
    }


def test_settings_of_the_base_model_file_stay(make_base, tmp_path: Path) -> None:
    """Llama 2 puts a space before every text; a model file written with Gemma's settings would not."""
    base, pieces = make_base("llama2")
    expand_tokenizer(base, pieces, [1] * len(pieces), tmp_path / "out", place="append")
    before, after = (
        sentencepiece.SentencePieceProcessor(model_file=str(f / "tokenizer.model")) for f in (base, tmp_path / "out")
    )
    assert after.encode("the patient") == before.encode("the patient")
    assert after.id_to_piece(after.encode("the"))[0].startswith("▁")


# -- refusals -------------------------------------------------------------------------------------------------------


def test_more_pieces_than_free_ids_are_refused_with_the_reasons(make_base, tmp_path: Path) -> None:
    base, pieces = make_base("gemma")
    complaint = r"30 pieces for 10 free slots and 0 free padded rows \(kept: 489 below reserved_slots = 489\); lower"
    with pytest.raises(TokenizerError, match=complaint):
        expand_tokenizer(base, pieces, [1] * 30, tmp_path / "out", reserved_slots=489)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["llama2", "smollm2"])
def test_a_base_without_free_ids_points_to_append(make_base, tmp_path: Path, name: str) -> None:
    base, pieces = make_base(name)
    with pytest.raises(TokenizerError, match=r"0 free slots and 0 free padded rows; .*tokenizer.place = 'append'"):
        expand_tokenizer(base, pieces, [1] * 30, tmp_path / "out")


@pytest.mark.parametrize("place", ["slots", "append"])
@pytest.mark.parametrize("name", ["gemma", "qwen"])
def test_a_piece_of_the_base_is_refused(make_base, tmp_path: Path, name: str, place: str) -> None:
    base, _ = make_base(name)
    known = next(p for p, i in sorted(load_tokenizer(base).get_vocab().items()) if i > 500 and len(p) == 2)
    with pytest.raises(TokenizerError, match="select_pieces drops such"):
        expand_tokenizer(base, [Candidate(known, (), (known[0], known[1]))], [1], tmp_path / "out", place=place)


def test_a_unigram_model_is_refused(make_base, english, tmp_path: Path) -> None:
    base = shutil.copytree(make_base("llama2")[0], tmp_path / "base")
    model = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter(english), model_writer=model, vocab_size=200, model_type="unigram", minloglevel=2
    )
    (base / "tokenizer.model").write_bytes(model.getvalue())
    with pytest.raises(TokenizerError, match="type BPE is needed"):
        expand_tokenizer(base, [], [], tmp_path / "out")


@pytest.mark.parametrize(
    ("model", "complaint"),
    [
        (models.WordPiece({"[UNK]": 0, "a": 1}, unk_token="[UNK]"), "its model is WordPiece"),
        (models.WordLevel({"[UNK]": 0, "a": 1}, unk_token="[UNK]"), "its model is WordLevel"),
        (models.Unigram([("a", 0.0), ("b", -1.0)], unk_id=0), "its model is Unigram"),
        (models.BPE({"a": 0, "b": 1, "ab": 2}, [("a", "b")]), "not byte-level, and no tokenizer.model beside it"),
    ],
)
def test_a_tokenizer_of_another_kind_is_refused(tmp_path: Path, model: models.Model, complaint: str) -> None:
    Tokenizer(model).save(str(tmp_path / "tokenizer.json"))
    with pytest.raises(TokenizerError, match=complaint):
        expand_tokenizer(tmp_path, [], [], tmp_path / "out")


def test_two_files_of_different_tokenizers_are_refused(make_base, tmp_path: Path) -> None:
    base = shutil.copytree(make_base("gemma")[0], tmp_path / "base")
    shutil.copyfile(make_base("llama2")[0] / "tokenizer.model", base / "tokenizer.model")
    with pytest.raises(TokenizerError, match="the two files are of different tokenizers"):
        expand_tokenizer(base, [], [], tmp_path / "out")


def test_a_base_whose_tokens_are_renumbered_when_read_is_refused(make_base, tmp_path: Path) -> None:
    original, pieces = make_base("llama3")
    base = shutil.copytree(original, tmp_path / "base")
    raw = read(base / "tokenizer.json")
    raw["added_tokens"] = [t for t in raw["added_tokens"] if t["content"] != "<|reserved_special_token_0|>"]
    (base / "tokenizer.json").write_text(json.dumps(raw), "utf-8")
    with pytest.raises(TokenizerError, match=r"in the file and .* when read"):
        expand_tokenizer(base, pieces, [1] * 30, tmp_path / "out")
