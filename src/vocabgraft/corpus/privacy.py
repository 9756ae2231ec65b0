"""Find personal data in Korean and English text: one pass for what could be some, then precise rules.

A number counts by its form and what its issuer lays down: dates and prefixes, check digits where they still hold
(resident numbers given out since October 2020 have none). What has no form of its own, such as a chart number, counts
only behind a cue word. Names are found behind cues and beside patients' titles alone, and only Korean ones: no rule
here knows a name in running text. Whoever needs more must look himself.
"""

from __future__ import annotations

import re
from bisect import bisect
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import date
from functools import cache
from unicodedata import digit

from vocabgraft.corpus.privacy_words import find_addresses, find_names

KINDS = (
    "insurance",
    "account",
    "resident",
    "card",
    "chart",
    "phone",
    "business",
    "licence",
    "passport",
    "email",
    "address",
    "name",
)
"""In the order in which they claim a place. `resident` holds foreigners' numbers too, `chart` a hospital's numbers."""


@dataclass(frozen=True, slots=True, order=True)
class Found:
    """A place of personal data; the text itself is not in here, so it cannot reach a log."""

    start: int
    end: int
    kind: str


# --- the same text, character for character, in plain digits and signs

_DASHES = "‐‑‒–—―−﹘﹣－ー˗⁃➖"
_BLANKS = (
    "\u00a0\u2000\u2001\u2002\u2003\u2004\u2005\u2006\u2007\u2008\u2009\u200a\u202f\u205f\u3000\u200b\u2060\u00ad\t"
)
_MASKS = "●■○◯•▲□＊∗"
_DOTS = "·ㆍ․‧・。．"


_DIGITS = "٠-٩۰-۹०-९𝟎-𝟿"  # beside the full-width ones


@cache
def _plain_signs() -> dict[str, str]:
    signs = {chr(i): chr(i - 0xFEE0) for i in range(0xFF01, 0xFF5F)}
    for marks, sign in ((_DASHES, "-"), (_BLANKS, " "), (_MASKS, "*"), (_DOTS, ".")):
        signs |= dict.fromkeys(marks, sign)
    return signs


_FOLDED = re.compile(f"[\uff01-\uff5e{_DASHES}{_BLANKS}{_MASKS}{_DOTS}{_DIGITS}]")


def fold(text: str) -> str:
    """Return the text with its digits, dashes, blanks, dots and masks in one writing; no character moves."""
    return _FOLDED.sub(lambda m: _plain_signs().get(m[0]) or str(digit(m[0])), text)


# --- numbers that their form gives away

_JOIN = r"(?: ?[-./_)] ?| {1,2})"
_MASK = "[*xX]"
_LEFT, _RIGHT = r"(?<![\dA-Za-z])(?<!\d[-.])", r"(?![\d*])(?![-.]\d)"
# Nine digits or masks in reach of one another: no number below is shorter.
_RUN = re.compile(rf"\d(?:[-./_)( ]{{0,3}}(?:\d|{_MASK})){{8,}}")
_AREA = "2|3[1-3]|4[1-4]|5[1-5]|6[1-4]|70|50[2-8]"
_NO_AREA = r"15|9|39|59\d"  # given to nobody: a pager's, and three outside the numbering plan
_ABROAD = r"\(?\+?\(?82\)?[-. ]?(?:\(0\)|0)?[-. ]?\(?"
_RESIDENT = re.compile(
    rf"{_LEFT}(?:(\d{{6}}) ?[-./_~ ]{{0,2}} ?([1-8])((?:\d|{_MASK}){{3}} ?(?:\d|{_MASK}){{3}})"
    rf"|((?:\d ){{5}}\d) ?[-./]? ?([1-8])((?: (?:\d|{_MASK})){{6}})){_RIGHT}"
)
_CARD = re.compile(
    rf"{_LEFT}(?:\d{{4}}{_JOIN}?(?:(?:\d|{_MASK}){{4}}{_JOIN}?){{2}}(?:\d|{_MASK}){{4}}"
    rf"|[03]\d{{3}}{_JOIN}?\d{{6}}{_JOIN}?\d{{5}}){_RIGHT}"
)
_PHONE = re.compile(
    rf"{_LEFT}(?:{_ABROAD}|\(?0)(1[016789]|{_AREA}|{_NO_AREA})(\)?{_JOIN}?)((?:\d|{_MASK}){{3,4}})"
    rf"({_JOIN}?)((?:\d|{_MASK}){{4}}){_RIGHT}"
)
_NOBODYS_AREA = re.compile(_NO_AREA)
_BUSINESS = re.compile(rf"{_LEFT}\d{{3}}{_JOIN}?\d\d{_JOIN}?\d{{5}}{_RIGHT}")
_LICENCE = re.compile(rf"{_LEFT}\d\d{_JOIN}?\d\d{_JOIN}?\d{{6}}{_JOIN}?\d\d{_RIGHT}")

_NEAR = 20  # characters before a number in which a cue is looked for
_RESIDENT_CUE = re.compile(r"주민|외국인|생년월일|RRN|[Rr]esident")
_BARCODE_CUE = re.compile(r"바코드|[Bb]arcode|EAN|GTIN|ISBN|UPC|상품")
_COMPANY_CUE = re.compile(r"법인")
_PHONE_CUE = re.compile(r"전화|연락처|휴대|핸드폰|팩스|☎|[Tt][Ee][Ll]|[Ff][Aa][Xx]|[Pp]hone|[Mm]obile|H\.?P")
_BUSINESS_CUE = re.compile(r"사업자")
_LICENCE_CUE = re.compile(r"면허|[Ll]icen[cs]e")
_NO_CHECK_SINCE = date(2020, 10, 5)
_BORN_BY = date(2030, 1, 1)  # not today: the same text has the same finds on any day


def _digits(value: str) -> str:
    return "".join(filter(str.isdigit, value))


# A check says yes, no, or None: a pseudonym of ours, which is to be left alone.
Check = Callable[["re.Match[str]", str], bool | None]


def _resident(m: re.Match[str], before: str) -> bool | None:
    number = _digits(m[0])
    if number[2:4] == "00":
        return None
    century = 1900 if number[6] in "1256" else 2000
    try:
        born = date(century + int(number[:2]), int(number[2:4]), int(number[4:6]))
    except ValueError:
        return False
    if born > _BORN_BY or _COMPANY_CUE.search(before[-12:]):
        return False
    if len(m[0]) > 13 or len(number) < 13 or _RESIDENT_CUE.search(before):
        return True
    korean = number[:3] == "880" and (sum(map(int, number[::2])) + 3 * sum(map(int, number[1::2]))) % 10 == 0
    barcode = korean or _BARCODE_CUE.search(before)
    return not barcode and (born >= _NO_CHECK_SINCE or _resident_check(number))


def _resident_check(number: str) -> bool:
    total = sum(int(d) * w for d, w in zip(number, (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5), strict=False))
    # A foreigner's is two higher.
    return int(number[12]) == ((13 if number[6] in "5678" else 11) - total % 11) % 10


def _card(m: re.Match[str], before: str) -> bool | None:
    number = re.sub(r"[^\d*xX]", "", m[0])
    if number[0] == "0":
        return None
    if not number.isdigit():
        return number[0] in "234569" and number[:4].isdigit() and len(number) == 16
    if number[0] not in "3456" and not (number[0] in "29" and len(m[0]) > len(number)):
        return False
    if len(number) == 15 and number[:2] not in ("34", "37"):
        return False
    doubled = (sum(divmod(2 * int(d), 10)) for d in number[-2::-2])
    return (sum(doubled) + sum(map(int, number[::-2]))) % 10 == 0


def _phone(m: re.Match[str], before: str) -> bool | None:
    if _NOBODYS_AREA.fullmatch(m[1]):
        return None
    if not _DIGIT.search(m[3] + m[5]):
        return False
    mobile, apart = m[1][0] == "1", bool(m[2] and m[4]) or m[0].startswith(("(", "+"))
    return mobile or apart or bool(_PHONE_CUE.search(before))


def _business(m: re.Match[str], before: str) -> bool | None:
    number = _digits(m[0])
    if number[:3] == "000":
        return None
    if len(m[0]) < 12 and not _BUSINESS_CUE.search(before):
        return False
    total = (
        sum(int(d) * w for d, w in zip(number, (1, 3, 7, 1, 3, 7, 1, 3, 5), strict=False)) + int(number[8]) * 5 // 10
    )
    return (10 - total % 10) % 10 == int(number[9])


def _licence(m: re.Match[str], before: str) -> bool | None:
    number = _digits(m[0])
    if number[:2] == "00":
        return None
    return 11 <= int(number[:2]) <= 28 and (len(m[0]) >= 15 or bool(_LICENCE_CUE.search(before)))


_FORMS: tuple[tuple[str, re.Pattern[str], Check], ...] = (
    ("resident", _RESIDENT, _resident),
    ("card", _CARD, _card),
    ("phone", _PHONE, _phone),
    ("business", _BUSINESS, _business),
    ("licence", _LICENCE, _licence),
)


# --- numbers that only a cue gives away

_NO = r"(?: ?(?:번호|[Nn][Oo]\.?|NO|[Nn]umber|[Ii][Dd]|#))"
_THEN = r"[은는이가]? ?[\"'(\[]?(?:[:=#|>.-]|No\.?|no\.?)?\s?[\"'(\[]?"
_BANK = "(?:[가-힣]{2} ?은행|농협|신협|우체국|[가-힣]{1,3}뱅크|새마을금고)"
_CHART = (
    r"(?:(?:환자 ?등록|환자|차트|병록|(?<![가-힣])(?:병원 ?|진료 ?|원내 ?)?등록|의무 ?기록|진료 ?기록|진료|검체|접수"
    rf"|병리|수진|수검|내원|진찰권|진료 ?카드|처방전?|검사|입원|외래){_NO}|(?<![A-Za-z])(?:MRN|PID|(?:[Cc]hart|CHART"
    r"|[Hh]ospital|[Pp]atient|PATIENT|[Ss]pecimen|SPECIMEN|[Aa]ccession|[Rr]eg\.?|[Uu]nit|[Pp]t\.?)"
    rf"{_NO}))"
)
_CHART_VALUE = r"[A-Za-z]{0,4}[- ]?\d{1,16}(?:[-./_]?[A-Z]{0,2}[-./_]?\d{1,16}){0,4}"
_INSURANCE = (
    "(?:(?:건강 ?|의료 ?)?보험증|건강 ?보험|의료 ?급여증?|건보|(?<![가-힣])증(?= ?번호)"
    "|NHIS|[Hh]ealth [Ii]nsurance(?: [Cc]ard)?)"
)
_CUED: tuple[tuple[str, re.Pattern[str], Callable[[str], bool | None]], ...] = (
    (
        "insurance",
        re.compile(rf"{_INSURANCE}{_NO}?{_THEN}(\d(?: ?[-./_ ]? ?\d){{10}}){_RIGHT}"),
        lambda value: None if _digits(value).startswith("000") else True,
    ),
    (
        "resident",
        re.compile(
            rf"(?:주민 ?(?:등록)?|외국인 ?등록) ?번호 ?(?:앞자리)?{_THEN}"
            rf"(\d{{6}} ?- ?(?:[1-8]|{_MASK}{{7}}))(?![\d*xX])"
        ),
        lambda value: None if value[2:4] == "00" else True,
    ),
    (
        "account",
        re.compile(rf"(?:계좌|입금|송금|{_BANK}|[Aa]ccount){_NO}?{_THEN}(\d(?:[- ]?\d){{9,15}}){_RIGHT}"),
        lambda value: None if _digits(value).startswith("000") else not _PHONE.fullmatch(value),
    ),
    (
        "passport",
        re.compile(rf"(?:여권|[Pp]assport){_NO}?{_THEN}([A-Z]\d{{3}}[A-Z]\d{{4}}|[A-Z]{{1,2}}\d{{7,8}})(?![\dA-Z])"),
        lambda value: value[0] != "X" or None,
    ),
    (
        "chart",
        re.compile(rf"{_CHART}{_THEN}({_CHART_VALUE})(?![\dA-Za-z])"),
        lambda value: None if value[0] == "X" else _chart(value),
    ),
)
_DATE = re.compile(r"(?:19|20)\d\d[-./ ]{1,2}\d{1,2}[-./ ]{1,2}\d{1,2}")


def _chart(value: str) -> bool:
    phone = len(value) > 10 and _PHONE.fullmatch(value)
    return sum(c.isdigit() for c in value) >= 4 and not phone and not _DATE.match(value)


# How every cue ends, with what may be a value behind it: most texts need no closer look.
_HINT = re.compile(
    r"(?:번호|보험증?|급여증?|건보|앞자리|계좌|[입송]금|은행|농협|신협|우체국|뱅크|금고|여권|[Nn][Oo]\.?|[Nn]umber|I[Dd]|id|#"
    rf"|MRN|PID|NHIS|[Ii]nsurance|[Cc]ard|[Aa]ccount|[Pp]assport){_THEN}(?=[A-Za-z]{{0,4}}[- ]?\d)"
)
_LONGEST_CUE, _LONGEST_VALUE = 40, 120
_DIGIT = re.compile(r"[0-9]")


# --- addresses on the net

_BEFORE_AT = re.compile(r"[A-Za-z0-9._%+-]{1,64}$")
_AFTER_AT = re.compile(r" ?((?:[A-Za-z0-9-]{1,63}\.){1,4}[A-Za-z]{2,24})(?![A-Za-z0-9-])")
# RFC 2606 and 6761: nobody has these. Our pseudonyms are among them.
_NOBODYS = re.compile(r"(?:.*\.)?(?:example(?:\.(?:com|org|net))?|test|invalid|localhost|local)$", re.IGNORECASE)
# Mailboxes of functions (RFC 2142 and the like), which are an organisation's; at a public provider anyone has them.
_NO_PERSON = re.compile(
    "abuse|accounts?|admin|administrator|answers|billing|careers|community|compliance|conduct|contact|contactus|copyright"
    "|customer|customerservice|cs|docs|donotreply|editor|editorial|enquiries|events|feedback|ftp|git|hello|help|helpdesk"
    "|hostmaster|hr|info|information|inquiries|inquiry|jobs|legal|licen[cs]e|licensing|mail|marketing|master|media|news"
    "|newsletter|no-?reply|noc|office|opencode|opensource|orders|partners?|postmaster|pr|press|privacy|qna|recruit"
    "|registration|root|sales|security|services?|support|team|usenet|uucp|webmaster|www",
    re.IGNORECASE,
)
_ANYONES = re.compile(
    r"(?:naver|hanmail|daum|kakao|nate|gmail|googlemail|yahoo|hotmail|outlook|live|icloud|me|msn|aol|proton|protonmail)\."
    r"[A-Za-z.]{2,6}$",
    re.IGNORECASE,
)


def _emails(text: str) -> Iterator[Found]:
    at = text.find("@")
    while at >= 0:
        name = _BEFORE_AT.search(text[max(0, at - 65) : at].rstrip(" "))
        host = _AFTER_AT.match(text, at + 1)
        if name and host and not _NOBODYS.match(host[1]) and not _of_a_function(name[0], host[1]):
            blank = text[at - 1] == " "
            if not (blank and text[at + 1] != " "):
                yield Found(at - blank - len(name[0]), host.end(), "email")
        at = text.find("@", at + 1)


def _of_a_function(name: str, host: str) -> bool:
    return bool(_NO_PERSON.fullmatch(name)) and not _ANYONES.match(host)


def find(text: str) -> list[Found]:
    """Return every place of personal data in order, none over another. The text is in NFC, as of `clean_text`."""
    folded = fold(text)
    claims = sorted(_claims(folded), key=lambda claim: KINDS.index(claim[0].kind))
    taken: list[Found] = []
    kept: list[Found] = []
    for found, ours in claims:
        at = bisect(taken, found)
        if (at and taken[at - 1].end > found.start) or (at < len(taken) and taken[at].start < found.end):
            continue
        taken.insert(at, found)
        if not ours:
            kept.append(found)
    return sorted(kept)


def _claims(text: str) -> Iterator[tuple[Found, bool]]:
    """Every place that a rule claims, and whether a pseudonym of ours stands there."""
    if _DIGIT.search(text):
        for hint in _HINT.finditer(text):
            for kind, cued, check_value in _CUED:
                for m in cued.finditer(text, max(0, hint.start() - _LONGEST_CUE), hint.end() + _LONGEST_VALUE):
                    if (verdict := check_value(m[1])) is not False:
                        yield Found(m.start(1), m.end(1), kind), verdict is None
        for run in _RUN.finditer(text):
            for kind, form, check in _FORMS:
                for m in form.finditer(text, max(0, run.start() - len("(+(")), run.end()):
                    verdict = check(m, text[max(0, m.start() - _NEAR) : m.start()])
                    if verdict is not False:
                        yield Found(m.start(), m.end(), kind), verdict is None
        yield from ((Found(*place, "address"), False) for place in find_addresses(text))
    yield from ((found, False) for found in _emails(text))
    yield from ((Found(*place, "name"), False) for place in find_names(text))
