"""Lines of text in five languages for tokenizer benchmarks: written sentences, real names, and made-up runs of letters.

Names of countries, languages, currencies and places are those of pycountry's catalogues (PyPI; Debian's iso-codes,
LGPL-2.1), fetched on first use (8 MB). Korean is Naver's film reviews (CC0) where ../shared/data is, else our prose.
"""

from __future__ import annotations

import gettext
import io
import random
import subprocess
import sys
import zipfile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import zstandard

from vocabgraft.audit import prose
from vocabgraft.corpus.script import script_pattern
from vocabgraft.machine import cache_folder
from vocabgraft.tokenizer.fuzz import fuzz_texts, letters_of

SCRIPTS = {"km": "Khmer", "bg": "Cyrillic", "th": "Thai", "ar": "Arabic", "ko": "Hangul"}
REVIEWS = Path("../shared/data/ko/nsmc_reviews.txt.zst")
_PYCOUNTRY = "pycountry==26.2.16"
_SENTENCES = {
    "km": (
        "សួស្តី តើអ្នកសុខសប្បាយទេ?",
        "ខ្ញុំរៀនភាសាខ្មែរនៅសាលា។",
        "ថ្ងៃនេះមេឃភ្លៀងខ្លាំងណាស់។",
        "វេជ្ជបណ្ឌិតណែនាំឱ្យផឹកទឹកឱ្យបានច្រើន។",
        "សូមលេបថ្នាំនេះពីរដងក្នុងមួយថ្ងៃ បន្ទាប់ពីអាហារ។",
        "ភ្នំពេញជារាជធានីនៃព្រះរាជាណាចក្រកម្ពុជា។",
        "គ្រុនចាញ់ និងគ្រុនឈាមត្រូវបានចម្លងដោយមូស។",
    ),
    "bg": (
        "Здравейте, как се чувствате днес?",
        "Приемайте лекарството два пъти дневно след хранене.",
        "Кръвното налягане на пациента е 120/80 мм живачен стълб.",
        "София е столицата на Република България.",
        "Лекарят препоръча повече вода, почивка и разходки на въздух.",
        "Диабетът от втори тип се лекува с диета, движение и лекарства.",
        "Щъркелът, ябълката и ъгълът: думи с особени букви.",
    ),
    "th": (
        "สวัสดีครับ วันนี้คุณรู้สึกอย่างไรบ้าง",
        "กรุณารับประทานยาหลังอาหารวันละสองครั้ง",
        "ความดันโลหิตของผู้ป่วยคือ 120/80 มิลลิเมตรปรอท",
        "กรุงเทพมหานครเป็นเมืองหลวงของประเทศไทย",
        "โรคเบาหวานชนิดที่สองรักษาด้วยอาหาร การออกกำลังกาย และยา",
        "แพทย์แนะนำให้ดื่มน้ำมาก ๆ และพักผ่อนให้เพียงพอ",
    ),
    "ar": (
        "مرحبا، كيف تشعر اليوم؟",
        "تناول هذا الدواء مرتين في اليوم بعد الأكل.",
        "ضغط دم المريض ١٢٠/٨٠ ملم زئبق.",
        "القاهرة عاصمة جمهورية مصر العربية.",
        "يُعالَجُ مرضُ السُّكَّرِيِّ بالحِمْيَةِ والرياضةِ والأدوية.",
        "نصح الطبيب بشرب الكثير من الماء والراحة.",
    ),
}
_FOREIGN = (
    "Blood pressure 120/80",
    "def f(x): return x",
    "→ 😀👩‍⚕️",
    "2026-11-23",
    "(HbA1c: 6.5 %)",
    "…",
    "漢字",
    "naïve",
)


def lines(language: str, count: int, seed: int) -> list[str]:
    """`count` different lines: up to a fifth made up, a fifth mixed with what is foreign, else sentences and names."""
    chance = random.Random(seed)
    letters = letters_of(script_pattern(SCRIPTS[language]))
    # A literal ▁ beside a space is a run of spaces to SentencePiece's readers and not to llama.cpp; no text has one.
    found = dict.fromkeys(t.replace("▁", "") for t in fuzz_texts(count // 5, seed, letters=letters))
    for _ in range(count // 5):
        found[f"{_line(language, chance)} {chance.choice(_FOREIGN)} {_line(language, chance)}"] = None
    while len(found) < count:
        found[_line(language, chance)] = None
    return list(found)


def _line(language: str, chance: random.Random) -> str:
    words = _words(language)
    if language == "ko" or chance.random() < 0.1:
        return chance.choice(words if language == "ko" else _SENTENCES[language])
    gap = chance.choice(("", " ")) if language in ("km", "th") else " "
    return gap.join(chance.choice(words) for _ in range(chance.randint(1, 9))) + chance.choice(("", ".", "?", "!", " "))


_KNOWN: dict[str, list[str]] = {}


def _words(language: str) -> list[str]:
    """Names of a language, or whole Korean lines; read once."""
    if language not in _KNOWN:
        _KNOWN[language] = _korean() if language == "ko" else _names(language)
    return _KNOWN[language]


def _korean() -> list[str]:
    if not REVIEWS.is_file():
        return [line for text in prose("korean") for line in text.splitlines() if line]
    with zstandard.open(REVIEWS, "rt", encoding="utf-8") as file:
        return [line.rstrip("\n") for _, line in zip(range(40_000), file, strict=False) if line.strip()]


def _names(language: str) -> list[str]:
    script, found = script_pattern(SCRIPTS[language]), set()
    with zipfile.ZipFile(_catalogues()) as archive:
        for name in archive.namelist():
            if f"/locales/{language}/" in name and name.endswith(".mo"):
                catalogue: Any = gettext.GNUTranslations(io.BytesIO(archive.read(name)))
                found |= {v for k, v in catalogue._catalog.items() if k and isinstance(v, str) and script.search(v)}
    return sorted(found)


def _catalogues() -> Path:
    path = cache_folder() / "languages" / f"{_PYCOUNTRY}.whl"
    if not path.is_file():
        path.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory() as place:
            download = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "-d", place, _PYCOUNTRY]
            subprocess.run(download, check=True, stdout=sys.stderr)
            (wheel,) = Path(place).glob("*.whl")
            path.write_bytes(wheel.read_bytes())
    return path
