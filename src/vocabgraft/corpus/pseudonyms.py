"""Put pseudonyms in the place of personal data: the same value has the same one in every text, shard and process.

A pseudonym keeps the written form (digits stay digits, dashes stay), since the text is read by a tokenizer trainer and
a language model: a tag such as `[phone-1a2b]` would win pieces of the vocabulary and be taught as language, and one
fixed word for all would hide which values are the same. Yet none is anybody's: each bears a mark no issued value has.

resident   month 00                      phone                          015, 09, 039, 059x: areas that nobody has
card       issuer 0                      insurance, account, business   000 at the start
licence    region 00                     passport, chart                X for the first character
email      …@example.com                 address                        ○○ for places, other numbers
name       a surname, ○, a syllable

By its mark `find` knows a pseudonym and leaves it alone: replacing twice is replacing once. A name has few pseudonyms
(about 1,000), so two persons may share one.
"""

from __future__ import annotations

import hmac
import re
from collections import Counter

from vocabgraft.corpus.privacy import Found, find, fold

#: Anyone can have this key. It parts values from texts, but whoever guesses a value can check the guess.
PUBLIC_KEY = b"vocabgraft: no secret"

_LOOKS = 8
_SURNAMES = "김이박최정강조윤장임한오서신권황안송전홍"
_SYLLABLES = "아연우진수희영민주은경호현서준지훈윤하율정선미성빈원태동철혜자순인석환기열용섭란"
_MASKS = "*xX"
_HANGUL = re.compile("[가-힣]+")
_UNIT = re.compile("(번지|번길|대로|[시도군구읍면동리가로길산층호번])$")


class Pseudonyms:
    """Replaces personal data under one key (HMAC-SHA256); `repr` tells nothing of it."""

    def __init__(self, key: bytes = PUBLIC_KEY) -> None:
        self._key = key

    def replace(self, text: str) -> tuple[str, Counter[str]]:
        """Return the text with pseudonyms, and how many of each kind. The text is in NFC."""
        counts: Counter[str] = Counter()
        # Values that stood wall to wall hid one another; a second look finds what the first has bared.
        for _ in range(_LOOKS):
            if not (places := find(text)):
                break
            parts, end = [], 0
            for found in places:
                parts += [text[end : found.start], self._pseudonym(found, fold(text[found.start : found.end]))]
                end = found.end
                counts[found.kind] += 1
            text = "".join([*parts, text[end:]])
        return text, counts

    def _pseudonym(self, found: Found, value: str) -> str:
        if found.kind == "name":
            n = self._number("name", value)
            return _SURNAMES[n % len(_SURNAMES)] + "○" + _SYLLABLES[n // len(_SURNAMES) % len(_SYLLABLES)]
        if found.kind == "email":
            return f"u{self._number('email', value.replace(' ', '').lower()):x}"[:9] + "@example.com"
        if found.kind == "address":
            return self._address(value)
        if found.kind in ("passport", "chart"):
            plain = re.sub("[^0-9A-Za-z]", "", value).upper()
            return "X" + _written(value[1:], self._digits(found.kind, plain))
        return self._issued(found.kind, value)

    def _issued(self, kind: str, value: str) -> str:
        """A number under a mark: which of its digits are zeros tells that it is ours."""
        masks = _MASKS if any(mask in value for mask in _MASKS) else ""
        prefix, national = _abroad(value) if kind == "phone" else ("", value)
        plain = "".join(c for c in national if c.isdigit() or c in masks)
        digits = self._digits(kind, plain)
        if kind == "resident":
            digits = digits[:2] + "00" + digits[4:6] + str(1 + int(digits[6]) % 4) + digits[7:]
        elif kind == "phone":
            digits = _nobodys_area(plain) + digits
        else:
            zeros = {"card": 1, "licence": 2}.get(kind, 3)
            digits = "0" * zeros + digits[zeros:]
        return prefix + _written(national, digits, masks)

    def _address(self, value: str) -> str:
        digits = self._digits("address", value.replace(" ", ""))
        province, blank, rest = value.partition(" ")
        # A house number begins with no 0.
        return province + blank + _written(_HANGUL.sub(_hidden, rest), digits.replace("0", "1"))

    def _digits(self, kind: str, value: str) -> str:
        return f"{self._number(kind, value):078d}"[::-1]

    def _number(self, kind: str, value: str) -> int:
        return int.from_bytes(hmac.digest(self._key, f"{kind}\0{value}".encode(), "sha256"))


def _written(form: str, digits: str, masks: str = "") -> str:
    """The form with its digits exchanged in order; a mask stays and uses up a digit."""
    left = iter(digits)
    return "".join(next(left) if c.isdigit() else (c, next(left))[0] if c in masks else c for c in form)


def _hidden(word: re.Match[str]) -> str:
    unit = _UNIT.search(word[0])
    return word[0] if unit and unit[0] == word[0] else "○○" + (unit[0] if unit else "")


_COUNTRY = re.compile(r"\(?\+?\(?82\)?[-. ]?(?:\(0\)|0)?[-. ]?\(?(?=[1-7])")


def _abroad(value: str) -> tuple[str, str]:
    """Country prefix as written, and the national number without its leading 0, so that both writings are one value."""
    m = _COUNTRY.match(value) or re.match(r"\(?0", value)
    return (m[0], value[m.end() :]) if m else ("", value)


def _nobodys_area(national: str) -> str:
    if national[0] == "2":
        return "9"
    return "59" if national[:2] == "50" else "15" if national[0] == "1" else "39"
