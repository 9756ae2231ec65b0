"""Dictionary entries."""

import gzip

import pytest

from vocabgraft.corpus import dictionary
from vocabgraft.corpus.dictionary import Pair, dictionary_file, read_pairs, write_pairs
from vocabgraft.corpus.document import Tally
from vocabgraft.corpus.word_pairs import merge_pairs
from vocabgraft.errors import DataError


def read(path, content=None):
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    tally = Tally()
    pairs = list(read_pairs(path, tally))
    tally.check()
    return pairs, tally


def test_columns_are_read_by_name(tmp_path):
    pairs, _ = read(tmp_path / "d.tsv", "en\tko\tlicense\tsource\tdomain\nfever\t열\tCC0\tbook\tsymptom\n")
    assert pairs == [Pair("fever", "열", "symptom", "CC0", "book")]


def test_two_columns_are_enough_for_any_two_languages(tmp_path):
    pairs, _ = read(tmp_path / "d.tsv", "\ufeffde\tsw\r\nHaus\tnyumba\r\n\r\nWasser\tmaji")
    assert [(p.source, p.target, p.origin) for p in pairs] == [("Haus", "nyumba", "d.tsv"), ("Wasser", "maji", "d.tsv")]


def test_a_compressed_dictionary_reads_the_same(tmp_path):
    (tmp_path / "d.tsv.gz").write_bytes(gzip.compress("en\tko\nfever\t열\n".encode()))
    pairs, _ = read(tmp_path / "d.tsv.gz")
    assert [p.target for p in pairs] == ["열"]


def test_a_bad_row_costs_itself_only(tmp_path):
    rows = [b"en\tko", b"a\t\xff", b"b", b"c\t ", b"d\t\0", "e\t열".encode(), b'"f\t\xea\xb0\x80']
    pairs, tally = read(tmp_path / "d.tsv", b"\n".join(rows))
    assert [(p.source, p.target) for p in pairs] == [("e", "열"), ('"f', "가")]
    assert tally.dropped == {"invalid UTF-8": 1, "missing column": 1, "empty": 1, "NUL character": 1}
    assert tally.examples["missing column"] == "d.tsv:3"


@pytest.mark.parametrize("content", ["", "fever\t열\n", "one column\n", "\n\n"])
def test_a_file_without_a_header_is_refused(tmp_path, content):
    with pytest.raises(DataError, match=r"d\.tsv:1 must name its columns"):
        read(tmp_path / "d.tsv", content)


def test_a_missing_file_is_told_with_similar_names(tmp_path):
    (tmp_path / "en_ko.tsv").touch()
    with pytest.raises(DataError, match=r"does not exist; similar names there: en_ko\.tsv"):
        read_pairs(tmp_path / "en-ko.tsv", Tally())


def test_an_unknown_sample_is_told(tmp_path):
    with pytest.raises(DataError, match="there is samples:dictionary"):
        read_pairs("samples:dictionaries", Tally())


@pytest.mark.parametrize("header", ["ko\ten\tsource", "pos\tko\tnote\ten"])
def test_the_languages_are_found_wherever_their_columns_stand(tmp_path, header):
    row = {"ko": "열", "en": "fever", "source": "book", "pos": "noun", "note": "?"}
    pairs, _ = read(tmp_path / "d.tsv", header + "\n" + "\t".join(row[name] for name in header.split("\t")))
    assert [(p.source, p.target) for p in pairs] == [("fever", "열")]
    assert {pairs[0].origin, pairs[0].pos} == {"book", ""} or {pairs[0].origin, pairs[0].pos} == {"d.tsv", "noun"}


def test_columns_of_other_names_are_asked_for_behind_the_file(tmp_path):
    (tmp_path / "kcd.tsv").write_text("code\t한글명칭\t영문명칭\nA00\t콜레라\tCholera\n", "utf-8")
    asked = f"{tmp_path}/kcd.tsv[영문명칭, 한글명칭]"
    assert [(p.source, p.target) for p in read_pairs(asked, Tally())] == [("Cholera", "콜레라")]
    assert dictionary_file(asked) == tmp_path / "kcd.tsv"
    with pytest.raises(DataError, match=r"kcd\.tsv:1 has no column 영문; found are code, 한글명칭, 영문명칭"):
        read_pairs(f"{tmp_path}/kcd.tsv[영문,한글명칭]", Tally())


def test_a_data_set_of_the_hub_is_read_by_its_columns(monkeypatch):
    rows = [{"english": "fever", "korean": "열", "license": "CC0"}, {"english": "cough", "korean": None}]
    asked = []
    monkeypatch.setattr(dictionary, "open_hub", lambda hub: asked.append(hub) or iter(rows))
    tally = Tally()
    assert list(read_pairs("hub:a/words:test[english,korean]", tally)) == [
        Pair("fever", "열", license="CC0", origin="hub:a/words:test")
    ]
    assert (asked[0].dataset, asked[0].split) == ("a/words", "test")
    assert tally.as_dict()["examples"] == {"empty": "a/words:2"}
    assert dictionary_file("hub:a/words:test[english,korean]") is None
    with pytest.raises(DataError, match="hub:a/words must name its columns"):
        read_pairs("hub:a/words", Tally())


def test_what_is_written_reads_the_same(tmp_path):
    pairs = [Pair("fever", "열", "symptom", "CC0", "book", "noun"), Pair("cough", "기침", origin="d.tsv")]
    assert write_pairs(tmp_path / "new" / "d.tsv", pairs) == 2
    assert read(tmp_path / "new" / "d.tsv")[0] == pairs


def test_an_entry_with_a_tab_is_not_written(tmp_path):
    with pytest.raises(DataError, match="holds a tab"):
        write_pairs(tmp_path / "d.tsv", [Pair("a\tb", "가")])
    assert not (tmp_path / "d.tsv").exists()


def test_the_dictionary_of_the_package_is_all_usable():
    pairs, tally = read("samples:dictionary")
    merged = merge_pairs(pairs, script="Hangul", support=0)
    assert tally.dropped == merged.tally.dropped == {}
    assert merged.pairs == pairs
    assert len(pairs) >= 300
    assert {p.license for p in pairs} == {"Apache-2.0"}
