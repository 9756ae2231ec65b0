"""Names of published data sets: what they say, and what a wrong one is told."""

import pytest
from pydantic import BaseModel

from vocabgraft.corpus.catalogue import look_up, read_catalogue
from vocabgraft.errors import DataError


class Shelf(BaseModel):
    """A data set with parts."""

    configs: tuple[str, ...] = ()


KNOWN = {"law-ko": Shelf(configs=("acts", "rulings")), "wiki": Shelf()}


def parts(source):
    return look_up(source, KNOWN, kind="source", form="source:NAME", more=" (see the list)")


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("source:wiki", (None, None, None)),
        ("source:law-ko/acts", ("acts", None, None)),
        ("source:wiki@0a1b", (None, "0a1b", None)),
        ("source:wiki@refs/pr/1", (None, "refs/pr/1", None)),
        ("source:law-ko/rulings@v1.2", ("rulings", "v1.2", None)),
        ("source:wiki=/data/my rows=2.jsonl", (None, None, "/data/my rows=2.jsonl")),
    ],
)
def test_a_name_says_its_part_commit_and_path(source, said):
    found, *rest = parts(source)
    assert found is KNOWN[source.split(":")[1].split("@")[0].split("=")[0].split("/")[0]]
    assert tuple(rest) == said


@pytest.mark.parametrize(
    ("source", "told"),
    [
        ("source:wikki", "did you mean 'wiki'? (see the list)"),
        ("source:qqq", "known are law-ko, wiki (see the list)"),
        ("source:law-ko/laws", "has no part 'laws'; its parts: acts, rulings"),
        ("source:wiki/acts", "its parts: none"),
        ("benchmark:wiki", "is not of the form source:NAME"),
        ("wiki", "is not of the form source:NAME"),
        ("source:", "is not of the form source:NAME"),
        ("source:wiki@", "is not of the form source:NAME"),
    ],
)
def test_a_wrong_name_is_told_what_it_could_be(source, told):
    with pytest.raises(DataError) as stopped:
        parts(source)
    assert told in str(stopped.value)


def test_entries_of_a_shipped_file_carry_their_names():
    class Named(BaseModel, extra="allow"):
        name: str

    entries = read_catalogue(Named, "vocabgraft.corpus", "sources.toml")
    assert entries
    assert all(entry.name == key for key, entry in entries.items())
