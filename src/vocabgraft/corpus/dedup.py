"""Find texts that came before."""

from __future__ import annotations

import hashlib
import unicodedata


def _squash(text: str) -> str:
    """Return the text without white space and capitals, in NFC."""
    folded = unicodedata.normalize("NFC", text).casefold()
    return "".join(unicodedata.normalize("NFC", folded).split())


class ExactDuplicates:
    """Remember texts by SHA-256, white space and capitals aside (about 100 bytes a text)."""

    def __init__(self) -> None:
        self._digests: set[bytes] = set()

    def __len__(self) -> int:
        return len(self._digests)

    def seen(self, text: str) -> bool:
        """Tell whether the text came before, and remember it."""
        digest = hashlib.sha256(_squash(text).encode("utf-8", "surrogatepass")).digest()[:16]
        before = len(self._digests)
        self._digests.add(digest)
        return len(self._digests) == before
