"""Dictionary entries."""

import gzip

import pytest

from vocabgraft.corpus.dictionary import Pair, filter_pairs, read_pairs, write_pairs
from vocabgraft.corpus.document import Tally
from vocabgraft.errors import DataError


def read(path, content=None):
    if content is not None:
        path.write_bytes(content.encode() if isinstance(content, str) else content)
    tally = Tally()
    pairs = list(read_pairs(path, tally))
    tally.check()
    return pairs, tally


def keep(pairs, script="Hangul"):
    tally = Tally()
    kept = list(filter_pairs(pairs, script=script, tally=tally))
    tally.check()
    return kept, tally.as_dict()["dropped"]


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


def test_entries_are_filtered_for_script_length_and_repetition():
    pairs = [
        Pair("fever", "열"),
        Pair("Fever", "열"),
        Pair("disease", "疾病"),
        Pair("a b c d", "가 나 다 라"),
        Pair("a b c d e", "가"),
        Pair("a", "가 나 다 라 마"),
    ]
    kept, dropped = keep(pairs)
    assert kept == [pairs[0], pairs[3]]
    assert dropped == {"duplicate": 1, "no target script": 1, "too long": 2}


def test_what_is_written_reads_the_same(tmp_path):
    pairs = [Pair("fever", "열", "symptom", "CC0", "book"), Pair("cough", "기침", origin="d.tsv")]
    assert write_pairs(tmp_path / "new" / "d.tsv", pairs) == 2
    assert read(tmp_path / "new" / "d.tsv")[0] == pairs


def test_an_entry_with_a_tab_is_not_written(tmp_path):
    with pytest.raises(DataError, match="holds a tab"):
        write_pairs(tmp_path / "d.tsv", [Pair("a\tb", "가")])
    assert not (tmp_path / "d.tsv").exists()


def test_the_dictionary_of_the_package_is_all_usable():
    pairs, tally = read("samples:dictionary")
    kept, dropped = keep(pairs)
    assert tally.dropped == {}
    assert dropped == {}
    assert len(kept) == len(pairs) >= 300
    assert {p.license for p in kept} == {"Apache-2.0"}
