"""The tokenizer inside a GGUF file: written, read back, and cut by llama.cpp as the folder's own files say."""

import json

import pytest
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

from vocabgraft.deployment.gguf_pieces import pre_of
from vocabgraft.deployment.gguf_tokenizer import copy_tokenizer, read_gguf_tokenizer, write_folder_tokenizer
from vocabgraft.deployment.serve import LlamaServer, new_key
from vocabgraft.errors import ModelError, TokenizerError
from vocabgraft.models.chat_templates import GEMMA
from vocabgraft.tokenizer.engines import Absent, llama_cpp
from vocabgraft.tokenizer.fuzz import FORMS, fuzz_texts
from vocabgraft.tokenizer.measure import encode, load_tokenizer
from vocabgraft.tokenizer.vocabulary import SPACE, write_tokenizer

pytest.importorskip("gguf")
TEXTS = [*FORMS.values(), "", " ", *fuzz_texts(200, 5, letters="가고혈압당")]
SMOLLM = pre_tokenizers.Sequence(
    [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
)


@pytest.fixture(scope="module")
def gemma(vocabulary, tmp_path_factory):
    folder = tmp_path_factory.mktemp("gemma")
    write_tokenizer(vocabulary, folder, GEMMA)
    return folder


def byte_level(folder, pre, english):
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=600,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        special_tokens=["<|end|>"],
        show_progress=False,
    )
    tokenizer.train_from_iterator(english, trainer)
    tokenizer.save(str(folder / "tokenizer.json"))
    return folder


def test_the_pieces_come_back_with_types_and_scores(gemma, vocabulary, tmp_path):
    write_folder_tokenizer(gemma, tmp_path / "t.gguf")
    found = read_gguf_tokenizer(tmp_path / "t.gguf")
    assert tuple(p.replace(" ", SPACE) for p in found.pieces) == vocabulary.pieces
    assert found.types == vocabulary.types
    assert found.model == "llama"
    assert found.fields["tokenizer.ggml.add_space_prefix"] is False


def test_a_copy_has_the_same_tokenizer_and_next_to_no_weights(gemma, tmp_path):
    write_folder_tokenizer(gemma, tmp_path / "t.gguf")
    copy_tokenizer(tmp_path / "t.gguf", tmp_path / "copy.gguf")
    assert read_gguf_tokenizer(tmp_path / "copy.gguf") == read_gguf_tokenizer(tmp_path / "t.gguf")
    assert (tmp_path / "copy.gguf").stat().st_size < 100_000


def test_many_texts_at_once_are_cut_as_one_by_one(gemma, tmp_path):
    pytest.importorskip("xllamacpp")
    write_folder_tokenizer(gemma, tmp_path / "t.gguf")
    with LlamaServer(tmp_path / "t.gguf", key=new_key(), context=256, threads=1, warmup=False) as server:
        found = server.tokenize_all(TEXTS)
        assert found[:30] == [server.tokenize(t, special=True) for t in TEXTS[:30]]
        assert server.tokenize_all([]) == []
    assert len(found) == len(TEXTS)


@pytest.mark.parametrize("name", ["smollm", "gpt-2"])
def test_byte_level_tokenizers_are_cut_by_llama_cpp_as_by_tokenizers(name, english, tmp_path):
    pytest.importorskip("xllamacpp")
    pre = SMOLLM if name == "smollm" else pre_tokenizers.ByteLevel(add_prefix_space=False)
    folder = byte_level(tmp_path, pre, english)
    assert pre_of(folder) == name
    with llama_cpp(folder) as engine:
        assert not isinstance(engine, Absent)
        assert engine.encode(english) == encode(load_tokenizer(folder), english)
        differ = [
            t
            for t, a, b in zip(TEXTS, engine.encode(TEXTS), encode(load_tokenizer(folder), TEXTS), strict=True)
            if a != b
        ]
    assert differ == []


def test_words_cut_in_an_unknown_way_are_refused_and_so_not_checked(english, tmp_path):
    folder = byte_level(tmp_path, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), english)
    assert pre_of(folder) is None
    with pytest.raises(TokenizerError, match="has no llama"):
        write_folder_tokenizer(folder, tmp_path / "t.gguf")
    with llama_cpp(folder) as engine:
        assert isinstance(engine, Absent)


def test_other_kinds_of_tokenizers_are_refused(tmp_path):
    (tmp_path / "tokenizer.json").write_text(json.dumps({"model": {"type": "Unigram", "vocab": []}}), "utf-8")
    with pytest.raises(TokenizerError, match="Unigram"):
        write_folder_tokenizer(tmp_path, tmp_path / "t.gguf")


@pytest.mark.parametrize("data", [b"", b"GGUF", b"no file of this kind at all"])
def test_what_is_no_gguf_file_is_an_error_of_ours(data, tmp_path):
    (tmp_path / "t.gguf").write_bytes(data)
    with pytest.raises(ModelError, match=r"t\.gguf"):
        read_gguf_tokenizer(tmp_path / "t.gguf")
