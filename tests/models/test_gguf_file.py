"""Our quick reader finds what the package's own reader finds, in files made by its writer; broken files raise."""

from __future__ import annotations

from pathlib import Path

import gguf
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocabgraft.errors import ModelError
from vocabgraft.models.gguf_file import open_gguf
from vocabgraft.models.gguf_import import import_gemma_gguf


def write(path: Path, arrays: list[list]) -> None:
    writer = gguf.GGUFWriter(str(path), "gemma3")
    for i, values in enumerate(arrays):
        writer.add_array(f"test.{i}", values)
    writer.add_string("test.last", "끝")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def found(reader: gguf.GGUFReader) -> dict:
    return {key: (field.offset, field.types, field.contents()) for key, field in reader.fields.items()}


ITEMS = [st.text(max_size=9), st.integers(-(2**31), 2**31 - 1), st.booleans(), st.floats(width=32, allow_nan=False)]


@given(arrays=st.lists(st.one_of(*(st.lists(item, min_size=1, max_size=9) for item in ITEMS)), max_size=5))
def test_fields_are_those_of_the_package(arrays: list[list], tmp_path_factory: pytest.TempPathFactory) -> None:
    path = tmp_path_factory.mktemp("gguf") / "m.gguf"
    write(path, arrays)
    assert found(open_gguf(path)) == found(gguf.GGUFReader(str(path)))


def test_a_file_cut_anywhere_raises_or_is_refused(tmp_path: Path) -> None:
    write(tmp_path / "whole.gguf", [["가", "나다", ""], [1, 2, 3]])
    data = (tmp_path / "whole.gguf").read_bytes()
    for size in range(len(data) - 32):  # the last bytes only pad
        (tmp_path / "cut.gguf").write_bytes(data[:size])
        with pytest.raises((OSError, ValueError, IndexError, KeyError)):
            found(open_gguf(tmp_path / "cut.gguf"))


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    writer = gguf.GGUFWriter(str(tmp_path / "m.gguf"), "llama")
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    with pytest.raises(ModelError, match="'llama'"):
        import_gemma_gguf(tmp_path / "m.gguf", tmp_path / "out")
