"""What a recipe wants done with personal data, as one function over texts."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace

from vocabgraft.corpus.document import Document, Tally
from vocabgraft.corpus.privacy import find
from vocabgraft.corpus.pseudonyms import PUBLIC_KEY, Pseudonyms
from vocabgraft.errors import RecipeError

#: Why a document was dropped; the word stands in manifests.
PERSONAL = "holds personal data"
_SHORTEST_KEY = 16

#: The text to go on with (None: drop it), and how many places of each kind were found in it.
Guard = Callable[[str], tuple[str | None, Counter[str]]]


def privacy_guard(privacy: str, variable: str) -> Guard:
    """Make the function that `data.privacy` asks for; a missing or short secret raises RecipeError, without it."""
    if privacy == "keep":
        return lambda text: (text, Counter())
    if privacy == "drop":
        return _dropped
    return Pseudonyms(key_of(variable)).replace


def without_personal(
    documents: Iterable[Document], guard: Guard, tally: Tally, counts: Counter[str]
) -> Iterator[Document]:
    """Yield the documents as the guard leaves them. They are whole: a cut could part a number from its cue."""
    for document in documents:
        text, found = guard(document.text)
        counts.update(found)
        if text is None:
            tally.drop(PERSONAL, document.id)
        else:
            yield replace(document, text=text)


def _dropped(text: str) -> tuple[str | None, Counter[str]]:
    found = Counter(place.kind for place in find(text))
    return (None if found else text), found


def key_of(variable: str) -> bytes:
    """The secret that an environment variable holds; without a name the public one."""
    if not variable:
        return PUBLIC_KEY
    key = os.environ.get(variable, "").encode()
    if len(key) >= _SHORTEST_KEY:
        return key
    said = f"holds {len(key)} bytes" if key else "is not set"
    problem = f"the environment variable {variable} {said}; set it to a secret of at least {_SHORTEST_KEY} bytes"
    raise RecipeError("data.privacy_key", [problem])
