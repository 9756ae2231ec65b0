"""Strings to try a tokenizer on: every code point, random mixtures from a seed, and forms of writing that break things.

The mixtures put what tokenizers cut by different rules side by side: letters of the new script, other scripts,
digits, emoji of several code points, letters taken apart, odd spaces, line ends, names of special tokens. The same
seed gives the same strings on every machine.
"""

from __future__ import annotations

import random
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from functools import cache

import regex

CODE_POINTS = 0x110000 - 0x800
"""Unicode code points that may stand in a text: all but the 2,048 surrogates."""

_SURROGATES = range(0xD800, 0xE000)
_MOST_SPACES = 40
_EMOJI = ("😀", "🫀", "👩‍⚕️", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇰🇷", "👍🏽", "1️⃣", "❤️", "🧑🏿‍🦽")
_SPACES = ("\t", "\n", "\r\n", "\n\n\n", "\r", "\u00a0", "\u200b", "\u3000", "\u2028", "\u200d", "\ufeff", "▁", " \n ")
_CODE = ("def f(x):", "return x + 1", "a[i] != b", "</div>", "::", "->", "e-mail@b.kr", "https://a.kr/?q=1", "{}", "##")
_WORDS = (
    "the",
    "patient",
    "Hypertension",
    "naïve",
    "ĳ",
    "Größe",
    "don't",
    "iPhone",
    "МРТ",
    "ελ",
    "中文",
    "ไทย",
    "हिन्दी",
    "عربي",
)

FORMS: dict[str, str] = {
    "precomposed (NFC)": "고혈압 환자는 약을 먹는다.",
    "decomposed (NFD)": unicodedata.normalize("NFD", "고혈압 환자는 약을 먹는다."),
    "conjoining jamo": "ᄒᆞᆫ글 ᄀᆡ ᅟᅠ",
    "compatibility jamo": "ㅋㅋㅋ ㅠㅠ ㄱㄴㄷ ㅏㅑ",
    "half-width jamo": "ﾡﾤﾧ ￂￃ",
    "Hanja": "高血壓 患者, 心筋梗塞(심근경색)",
    "emoji": "😀🫀 좋아요👍🏽",
    "emoji joined": "👩‍⚕️ 의사 👨‍👩‍👧‍👦 가족",
    "full-width": "ＡＢＣ１２３（가）",
    "units": "5㎎ 120㎗ 37.5℃ 3㎝ ㎍",
    "no-break space": "혈압\u00a0120",
    "zero-width space": "혈압\u200b수치",
    "ideographic space": "혈압\u3000수치",
    "zero-width joiner": "क्‍ष 가\u200d나",
    "byte order mark": "\ufeff혈압",
    "tabs and line ends": "혈압\t120\r\n맥박\t80\n\n",
    "runs of spaces": "혈압  120   80" + " " * 31 + "끝",
    "digits": "12345 3.14 2026-11-21 010-1234-5678",
    "English": "The patient's blood pressure is 120/80.",
    "code": "def f(x):\n    return x + 1  # 두 칸",
    "literal ▁": "a▁b ▁혈압",
}
"""Name -> text. Korean, because that is where most of these forms occur; harmless for any other language."""


@cache
def letters_of(script: regex.Pattern[str]) -> str:
    """Every code point that a script's pattern matches, in order."""
    return "".join(script.findall("".join(all_code_points())))


def all_code_points() -> Iterator[str]:
    """The 1,112,064 code points that may stand in a text, each on its own."""
    return (chr(i) for i in range(0x110000) if i not in _SURROGATES)


def code_points(limit: int | None, seed: int) -> list[str]:
    """All code points, or `limit` of them: ASCII and a random choice, in order."""
    everything = list(all_code_points())
    if limit is None or limit >= len(everything):
        return everything
    chosen = random.Random(seed).sample(everything[128:], max(0, limit - 128))  # noqa: S311 — no secret
    return everything[:128] + sorted(chosen)


def fuzz_texts(
    count: int, seed: int, *, letters: str, pieces: Sequence[str] = (), specials: Sequence[str] = ()
) -> list[str]:
    """`count` random mixed strings; the same arguments give the same strings.

    letters: of the new script. pieces: texts of new pieces, to be put side by side, inside words and cut in two.
    specials: names of special tokens; every tenth string has one, all others have none.
    """
    chance = random.Random(seed)  # noqa: S311 — no secret
    makers = _makers(chance, letters, pieces)
    found = []
    for n in range(count):
        parts = [chance.choice(makers)() for _ in range(chance.randint(1, 12))]
        if specials and n % 10 == 9:
            parts.insert(chance.randrange(len(parts) + 1), chance.choice(specials))
        found.append(chance.choice(("", "", " ")).join(parts))
    return found


def _makers(chance: random.Random, letters: str, pieces: Sequence[str]) -> list[Callable[[], str]]:
    def word() -> str:
        return "".join(chance.choice(letters) for _ in range(chance.randint(1, 6)))

    def joined() -> str:
        chosen = [chance.choice(pieces) for _ in range(chance.randint(1, 3))]
        return chance.choice(("", " ", chance.choice(letters))) + "".join(chosen)

    def cut() -> str:
        piece = chance.choice(pieces)
        at = chance.randint(0, len(piece))
        return chance.choice((piece[at:] + chance.choice(letters), chance.choice(letters) + piece[:at] + piece))

    def anything() -> str:
        point = chance.randrange(CODE_POINTS)
        return chr(point if point < _SURROGATES.start else point + len(_SURROGATES))

    makers: list[Callable[[], str]] = [
        lambda: chance.choice(_WORDS),
        lambda: "".join(chance.choice("aAbBéxyzT'-") for _ in range(chance.randint(1, 8))),
        lambda: "".join(chance.choice("0123456789.,") for _ in range(chance.randint(1, 9))),
        lambda: chance.choice(_EMOJI),
        lambda: chr(chance.randrange(0x4E00, 0xA000)),
        lambda: chr(chance.randrange(0x1100, 0x1200)) + chr(chance.randrange(0x3131, 0x3190)),
        lambda: chr(chance.randrange(0xFF01, 0xFFDD)),
        lambda: unicodedata.normalize("NFD", word() if letters else chance.choice(_WORDS)),
        lambda: chance.choice(_SPACES),
        lambda: " " * chance.randint(1, _MOST_SPACES if chance.random() < 0.1 else 6),
        lambda: chance.choice(_CODE),
        lambda: unicodedata.normalize("NFC", anything()),
    ]
    makers += [word, word, word] if letters else []
    return makers + ([joined, joined, cut] if pieces and letters else [])
