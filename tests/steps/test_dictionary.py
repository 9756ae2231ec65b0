"""03-dictionary on a run, and what its outcome covers."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from vocabgraft.corpus.dictionary import Pair, read_pairs
from vocabgraft.corpus.document import Tally
from vocabgraft.steps.dictionary import coverage

HEAD = "en\tko\tsource\tdomain\tlicense\n"
SOURCES = ("acute", "chronic", "left", "renal", "hepatic", "pain")
TARGETS = ("급성", "만성", "왼쪽", "신장", "간성", "통증")


def titles(path: Path) -> str:
    draw, lines = random.Random(1), ["fever\t열\twords\tsymptom\tCC0", "illness\t疾病\twords\tsymptom\tCC0"]
    for n in range(40):
        chosen = draw.sample(range(6), 4)
        source, target = (" ".join(words[i] for i in chosen) for words in (SOURCES, TARGETS))
        lines.append(f"{source} {n}\t{target} {n}\ttitles\tmedical\tGPL-3")
    path.write_text(HEAD + "\n".join(lines) + "\n", "utf-8")
    return f"data.dictionary=['{path}', 'samples:dictionary']"


def test_every_entry_is_kept_split_or_dropped_and_every_pair_has_its_licence(done, tmp_path: Path) -> None:
    run = done(titles(tmp_path / "t.tsv"), until="03")
    found = run.manifest("03-dictionary").metrics
    kept, dropped = found["filter"]["kept"], found["filter"]["dropped"]
    assert found["read"]["kept"] == found["filter"]["read"] == kept + sum(dropped.values())
    assert found["pairs"] == kept + found["from_phrases"]["new"]
    assert dropped["no target script"] == 1
    assert dropped["split into words"] == 40
    pairs = list(read_pairs(run.path("03-dictionary", "dictionary.tsv"), Tally()))
    assert len(pairs) == found["pairs"]
    assert Pair("hepatic", "간성", "medical", "GPL-3", "titles") in pairs
    bill = {(each.name, each.license) for each in run.manifest("03-dictionary").licences}
    assert bill == {("words", "CC0"), ("titles", "GPL-3"), ("samples:dictionary", "Apache-2.0")}
    assert found["domains"]["medical"]["with_entry"] > found["domains"]["medical"]["with_entry_before"]


def test_phrases_stay_whole_where_the_recipe_says_so(done, tmp_path: Path) -> None:
    run = done(titles(tmp_path / "t.tsv"), "data.dictionary_support=0", until="03")
    assert run.manifest("03-dictionary").metrics["filter"]["dropped"] == {"no target script": 1, "too long": 40}


def test_no_dictionary_is_no_harm(done) -> None:
    found = done("data.dictionary=[]", until="03").manifest("03-dictionary").metrics
    assert (found["pairs"], found["domains"], found["licences"]) == (0, {}, {})


def test_the_same_dictionaries_give_the_same_bytes(done, tmp_path: Path) -> None:
    setting = titles(tmp_path / "t.tsv")
    first = done(setting, until="03").manifest("03-dictionary").outputs
    (tmp_path / "run").rename(tmp_path / "before")
    assert done(setting, until="03").manifest("03-dictionary").outputs == first


@pytest.mark.slow
def test_content_words_are_told_by_kiwi_where_no_column_says(done, tmp_path: Path) -> None:
    pytest.importorskip("kiwipiepy")
    (tmp_path / "w.tsv").write_text("en\tko\nfever\t열병\nby\t에게\nSeoul\t서울\n", "utf-8")
    run = done(f"data.dictionary=['{tmp_path}/w.tsv']", "data.dictionary_words=content", until="03")
    assert [p.target for p in read_pairs(run.path("03-dictionary", "dictionary.tsv"), Tally())] == ["열병"]
    assert run.manifest("03-dictionary").metrics["filter"]["dropped"] == {"part of speech": 2}


def test_coverage_is_of_frequent_words_and_of_new_pieces(done, context) -> None:
    run = done(until="13")
    found = coverage(context(run))
    assert set(found) == {"frequent words", "new pieces of two letters or more"}
    for line in found.values():
        assert 0 < line["with_entry"] < line["words"]
