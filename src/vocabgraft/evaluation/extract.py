"""Which option does a written answer choose? For answers that were generated; `choices` scores without any text.

Each sign of an option (a letter or a number that is no part of a word, a measure or a name) is judged by what stands
before it ("정답은 …", "The answer is …") and behind it ("…가 정답", "… is correct"). So Korean particles, `2번`,
circled and full-width signs, reasoning before the answer, an answer taken back, English articles, vitamins and
hepatitis B are told apart. Where no sign chooses, an option's text may: said to be the answer, standing in the last or
first sentence, or as good as spelt there. A text that chooses nothing, or two options, gives None.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

from vocabgraft.evaluation import answer_phrases as phrases
from vocabgraft.evaluation.answer_phrases import Sign, cleaned, normal, plain, signs_of


def extract(answer: str, options: Sequence[str]) -> int | None:
    """0-based index of the option that a written answer chooses; None where it chooses none, or more than one.

    options: their texts, for answers that name the text and no letter. Reasoning between thinking marks is not looked
    at; an answer that never left it is None. Of several choices the last counts.
    """
    options = [normal(option).strip() for option in options]
    text = cleaned(answer, options)
    text, marked = _without_lists(text, options)
    if marked is not None:
        return marked
    inside = _mentions(text, options, denied=True)
    signs = [
        s
        for s in signs_of(text)
        if s.option < len(options) and not any(m.start <= s.start and s.end <= m.end for m in inside)
    ]
    for rule in (_said, _concluded):
        chosen = [n for n in range(len(signs)) if not _denied(text, signs[n]) and rule(text, signs, n)]
        if chosen:
            last = chosen[-1]
            return None if _with_another(text, signs, last) else signs[last].option
        if rule is _said and (named := _named(text, options)) is not None:
            return named
    with_text = [s for s in signs if _then_its_text(text, s, options)]
    if len({s.option for s in with_text}) == 1:
        return with_text[0].option
    if signs and _opens(text, signs, options) and not _with_another(text, signs, 0):
        return signs[0].option
    found = _mentioned(text, options)
    return _resembled(text, options) if found is None and not inside else found


def _said(text: str, signs: Sequence[Sign], n: int) -> bool:
    """Said to be the answer by what stands before or behind it."""
    sign = signs[n]
    if phrases.BEHIND.match(sign.behind(text)):
        return True
    if sign.written == "a" and phrases.ARTICLE.match(sign.behind(text)):
        return False
    if phrases.BEFORE.search(sign.before(text)):
        return not (sign.written == "A" and phrases.ARTICLE.match(sign.behind(text)))
    # "정답은 A가 아니라 C", "not A but C": what was denied hands the answer on.
    if n == 0:
        return False
    between = text[signs[n - 1].end : sign.start]
    denied = _denied(text, signs[n - 1])
    return denied and len(between) <= 24 and bool(phrases.BUT.search(between))


def _concluded(text: str, signs: Sequence[Sign], n: int) -> bool:
    """Where nothing is said to be the answer: what a sentence comes to, "따라서 C.", "so it's B", "그건 2번이요"."""
    sign = signs[n]
    before, behind = sign.before(text), sign.behind(text)
    if sign.weak:
        return not behind.strip(" .") and bool(phrases.CONNECTIVE.search(before))
    ends = bool(phrases.ENDS.match(behind))
    measure = sign.written.isdigit() and not sign.closed and re.search(r"\bis\s*\Z", before)  # "the score is 4."
    if phrases.COPULA.match(behind) or (ends and phrases.CONNECTIVE.search(before) and not measure):
        return True
    last = not re.search(r"[^\s.!~)]", text[sign.end :])
    return last and bool(re.search(r"\n[^\S\n]*\Z|[.!?]\s+\Z", before))


def _denied(text: str, sign: Sign) -> bool:
    return bool(phrases.DENIED.match(sign.behind(text)) or phrases.NOT.search(sign.before(text)))


def _with_another(text: str, signs: Sequence[Sign], n: int) -> bool:
    """Named in one breath with a different option: 'A와 B', 'B or C'."""
    near = [(signs[a], signs[a + 1]) for a in (n - 1, n) if a >= 0 and a + 1 < len(signs)]
    return any(a.option != b.option and bool(phrases.ALSO.match(text[a.end : b.start])) for a, b in near)


def _opens(text: str, signs: Sequence[Sign], options: Sequence[str]) -> bool:
    """The text begins with a sign that stands there as an answer, and does not just repeat the options."""
    first = signs[0]
    if not phrases.NOTHING.fullmatch(text[: first.start]):
        return False
    if {s.option for s in signs} == {first.option} and not re.sub(r"[\W\d]|번", "", _without(text, signs)):
        return True
    if first.weak and text[first.end :].strip(" .)"):
        return False
    listed = [s for s in signs if _then_its_text(text, s, options)]
    order = [s.option for s in listed]
    repeated = len(order) > 1 and order == list(range(len(order))) and len(listed) >= len(signs) - 1
    return not repeated and bool(first.closed or phrases.OPENED.match(text[first.end :]))


def _then_its_text(text: str, sign: Sign, options: Sequence[str]) -> bool:
    """A sign with the text of its option behind it."""
    return _begins(text[sign.end :].lstrip(" .):,"), options[sign.option])


def _begins(text: str, option: str) -> bool:
    return bool(option) and plain(text).startswith(plain(option))


def _without_lists(text: str, options: Sequence[str]) -> tuple[str, int | None]:
    """The text without lines that repeat the options; and the option whose line is marked as right, if one is."""
    lines, listed = text.split("\n"), dict[int, int]()
    for n, line in enumerate(lines):
        bare = line.lstrip(" -•.")
        sign = next((s for s in signs_of(bare)[:1] if s.start <= 1 and s.option < len(options)), None)
        named = [k for k, o in enumerate(options) if _begins(bare, o)]
        items = [s for s in signs_of(bare) if s.option < len(options) and _then_its_text(bare, s, options)]
        if len({s.option for s in items}) > 2:
            lines[n] = _without(bare, [replace(s, end=_end_of_item(bare, s, options)) for s in items])
        elif sign is not None or named:
            listed[n] = sign.option if sign is not None else max(named, key=lambda k: len(options[k]))
    text = "\n".join(lines).strip()
    if len(set(listed.values())) < max(3, len(options) - 1) or list(listed.values()) != sorted(set(listed.values())):
        return text, None
    marked = [listed[n] for n in listed if phrases.MARKED.search(lines[n]) and not phrases.WRONG.search(lines[n])]
    kept = [line for n, line in enumerate(lines) if n not in listed]
    return "\n".join(kept).strip(), marked[0] if len(marked) == 1 else None


def _end_of_item(text: str, sign: Sign, options: Sequence[str]) -> int:
    """Where the text of a sign's option ends, that stands behind it."""
    own = [m.end for m in _mentions(text, options, denied=True) if m.option == sign.option and m.start >= sign.end]
    return own[0] if own else sign.end


def _without(text: str, signs: Sequence[Sign]) -> str:
    for sign in reversed(signs):
        text = text[: sign.start] + text[sign.end :]
    return text


def _named(text: str, options: Sequence[str]) -> int | None:
    """The one option whose text is the whole answer, or is said to be it; of several said, the last."""
    said = plain(re.sub(r"(?:입니다|이다|이에요|예요)?[.!。\s]*\Z", "", text))
    ends = [said, *(plain(line.rstrip(".")) for line in text.split("\n")[:1])]
    whole = [n for n, each in enumerate(options) if each and plain(each) in ends]
    if whole:
        return whole[0] if len(whole) == 1 else None
    chosen = [
        m.option
        for m in _mentions(text, options)
        if phrases.BEFORE.search(m.before(text))
        or phrases.BEHIND.match(m.behind(text))
        or phrases.NAMES.search(m.before(text))
    ]
    return chosen[-1] if chosen else None


def _mentioned(text: str, options: Sequence[str]) -> int | None:
    """Where no sign chooses: the one option whose text stands in the last sentence, or in the first."""
    if phrases.REFUSES.search(text):
        return None
    sentences = _sentences(text)
    for sentence in (sentences[-1:], sentences[:1]):
        found = [m for each in sentence for m in _mentions(each, options)]
        if not found:
            continue
        last = found[-1]
        behind, before = last.behind(sentence[0]), last.before(sentence[0])
        if len({m.option for m in found}) > 1 and not phrases.FINISHES.match(behind):
            return None
        loose = phrases.JOINED.match(behind) or phrases.JOINS.search(before) or phrases.OPEN_END.search(sentence[0])
        return None if loose else last.option
    return None


def _resembled(text: str, options: Sequence[str]) -> int | None:
    """Where no option is named to the letter: the one of whose pairs of letters a last or first sentence has most."""
    sentences = _sentences(text)
    if phrases.REFUSES.search(text) or phrases.CONDITION.search(text) or phrases.OPEN_END.search(text):
        return None
    for sentence in (sentences[-1:], sentences[:1]):
        pairs = _pairs(" ".join(sentence))
        shares = sorted((_share(_pairs(o), pairs), n) for n, o in enumerate(options))
        words = set(re.findall(r"[^\W\d_]{6,}", " ".join(phrases.LEADS.findall(" ".join(sentence))).casefold()))
        having = [n for n, o in enumerate(options) if words & _own_words(options, n)]
        if len(having) == 1:
            return having[0]
        if shares[-1][0] >= 0.6 and shares[-1][0] - shares[-2][0] >= 0.3:
            return shares[-1][1]
    return None


def _share(own: set[str], found: set[str]) -> float:
    """Of an option's pairs; few say nothing, and a pair of syllables says more than one of letters."""
    enough = 4 if any("가" <= pair[0] <= "힣" for pair in own) else 8
    return len(own & found) / len(own) if len(own) >= enough else 0.0


def _own_words(options: Sequence[str], n: int) -> set[str]:
    """Long words of an option that no other has."""
    each = [set(re.findall(r"[^\W\d_]{6,}", o.casefold())) for o in options]
    return each[n].difference(*each[:n], *each[n + 1 :])


def _pairs(text: str) -> set[str]:
    letters = [c for c in plain(text) if c.isalnum()]
    return {a + b for a, b in pairwise(letters)}


def _sentences(text: str) -> list[str]:
    return [s for s in re.split(r"(?<=[.!?。])\s+|\n+", text) if s.strip()]


def _mentions(text: str, options: Sequence[str], *, denied: bool = False) -> list[Sign]:
    """Where option texts stand, denied ones if asked for; where one begins or lies within another, the longer."""
    found = []
    for n, option in enumerate(options):
        if not option:
            continue
        # Korean is written with and without spaces, English is not.
        spelt = re.sub(r"(?<=[가-힣])(?=.)|\s+(?=[가-힣])", " ", re.sub(r"\s+", " ", option))
        spelt = re.sub(r"(?:\\ )+", lambda m: r"\s+", re.escape(spelt))
        spelt = re.sub(r"(?<=[가-힣0-9])\\s\+|\\s\+(?=[가-힣])", lambda m: r"\s*", spelt)
        for match in re.finditer(rf"(?<![A-Za-z0-9가-힣]){spelt}(?![A-Za-z0-9])", text, re.IGNORECASE):
            found.append(Sign(match.start(), match.end(), n, ""))
    found = [m for m in found if not any(o is not m and o.start <= m.start and m.end <= o.end for o in found)]
    return sorted((m for m in found if denied or not _denied(text, m)), key=lambda m: m.start)
