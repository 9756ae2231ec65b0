"""The tests' tiny model, live, and its tokenizer."""

from __future__ import annotations

from typing import Any

import pytest
from tokenizers import Tokenizer

from vocabgraft.tokenizer.measure import load_tokenizer


@pytest.fixture(scope="module")
def model(world) -> Any:
    """float32, so that what depends on the order of sums stays small."""
    from vocabgraft.models.load import load_model

    return load_model(world.base, dtype="float32")


@pytest.fixture(scope="module")
def tokenizer(world) -> Tokenizer:
    return load_tokenizer(world.base)
