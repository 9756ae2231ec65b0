"""How answers are put into words, in Korean and English: the patterns that `extract` reads by."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

from vocabgraft.evaluation.questions import LETTERS

_THOUGHT = re.compile(r"\A.*(?:</think>|<unused95>)|(?:<think>|<unused94>).*\Z", re.DOTALL)
_BOXED = re.compile(r"\\(?:boxed|text|textbf|mathrm|mathbf)\s*\{([^{}]*)\}")
_MARKS = re.compile(
    r"[*_`$#>\"“”‘|【】]+|(?<![A-Za-z])['’]|['’](?![A-Za-z])|</?(?:b|strong|answer|em|i|br)\s*/?>|\\[()\[\]]"
)
_CHANNEL = re.compile(
    r"\A.*<\|(?:message|im_start|start_header_id)\|>(?:assistant\n)?|<\|[^|<>]*\|>|</?s>|<(?:start|end)_of_turn>",
    re.DOTALL,
)
_GENUS = re.compile(
    r"\b[A-Z]\.\s?(?=(?:coli|pylori|difficile|aureus|pneumoniae|albicans|botulinum|tetani|perfringens|influenzae|burgdorferi"
    r"|trachomatis|fragilis|jejuni|cereus|anthracis|pertussis|falciparum|vivax|pallidum)\b)"
)
_RUN_ON = re.compile(
    r"(?<=\S)\s*\n+\s*(?:\d+\.\s*)?(?:문제|질문|다음 문제|Question|Q\s?\d*)\s*\d*\s*[:.：].*\Z", re.DOTALL
)
_THING = r"(?:\s?(?:보기|선택지|항목|답))?"
_ORDINALS = [
    (
        re.compile(
            rf"(?<!끝에서 ){korean}\s?번째{_THING}|(?:the\s+)?{english}\s+(?:option|choice|answer|one)\b"
            rf"|\bnumber\s+{plain}\b",
            re.I,
        ),
        f"{n}번",
    )
    for n, (korean, english, plain) in enumerate(
        [
            ("(?:첫|한)", "first", "one"),
            ("두", "second", "two"),
            ("세", "third", "three"),
            ("네", "fourth", "four"),
            ("다섯", "fifth", "five"),
        ],
        1,
    )
]
_LAST = re.compile(r"마지막\s?(?:보기|선택지|항목)|(?:the\s+)?last\s+(?:option|choice|answer|one)", re.I)
_LAST_BUT_ONE = re.compile(rf"끝에서\s?두\s?번째{_THING}")

_KINDS = "형|군|급|기"  # B형 간염, 제1군
_UNITS = "형|군|급|기|개|명|년|월|일|주|시간|분|세|회|차|배|단계|가지|인자|점|도|병|mg|kg|g|ml|mL|cm|mm|mmHg|IU|%|℃|°"
_SIGN = re.compile(
    rf"(?<![A-Za-z0-9./'’+])(?<![A-Za-z0-9]-)(?P<open>[(\[{{「『<]\s?)?(?:(?P<letter>[A-Ja-j])|(?P<digit>10|[1-9]))"
    rf"(?P<number>\s?번|안(?=[이은는을]))?(?![A-Za-z0-9+'’]|[-]\s?[A-Za-z0-9]|[.,]\d)"
    rf"(?(digit)(?!\s?(?:{_UNITS})(?![가-힣]*정답))|(?!\s?(?:{_KINDS})(?![가-힣]*정답)))(?P<close>\s?[)\]}}」』>])?"
    r"|(?<=\bis)(?P<glued>[A-J])(?![A-Za-z0-9])"
)


@dataclass(frozen=True)
class Sign:
    """The sign of an option at `start` to `end` of a text; `option` is 0-based.

    weak: a small letter that nothing marks as a sign. closed: a bracket or '번' does.
    """

    start: int
    end: int
    option: int
    written: str
    closed: bool = False

    @property
    def weak(self) -> bool:
        """Only a cue right before it makes it a sign."""
        return self.written.islower() and not self.closed

    def before(self, text: str) -> str:
        """Up to 60 characters before it: of its line, and where it opens one, of a short line above ("정답:")."""
        lines = text[max(0, self.start - 60) : self.start].rstrip(" ([").split("\n")
        above = next((line for line in reversed(lines[:-1]) if line.strip()), "")
        whole = f"{above}\n" if above and not lines[-1].strip() and len(above) <= 24 else "\n"
        return (whole if len(lines) > 1 else "") + text[max(0, self.start - 60) : self.start].split("\n")[-1]

    def behind(self, text: str) -> str:
        """Up to 40 characters behind it."""
        return text[self.end : self.end + 40]


def cleaned(answer: str, options: Sequence[str]) -> str:
    """Without thoughts, markup, further questions and option texts in brackets; signs in plain form (Ｂ, ②, ⓑ)."""
    text = normal(_CHANNEL.sub(" ", _THOUGHT.sub(" ", answer))).replace("\\%", "%")
    text = _GENUS.sub("", re.sub(r"~~.*?~~", " ", text))
    if re.fullmatch(r"(?:\S\s+)+\S\s*", text) and len(set(text)) > 4:
        text = re.sub(r"(?<=[A-Za-z])\s(?=[A-Za-z](?:\s|\Z))", "", text)  # s p e l l e d
    for _ in range(2):  # \\boxed{\\text{B}}
        text = _BOXED.sub(r" \1 ", text)
    text = _RUN_ON.sub("", _MARKS.sub(" ", text).strip())
    for pattern, number in [*_ORDINALS, (_LAST, f"{len(options)}번"), (_LAST_BUT_ONE, f"{len(options) - 1}번")]:
        text = pattern.sub(number, text)
    for option in options:
        text = text.replace(f"({option})", "")
    return text.strip()


def normal(text: str) -> str:
    """One form for signs and letters that look alike: Ｂ, ②, Ⅳ."""
    return unicodedata.normalize("NFKC", text)


def plain(text: str) -> str:
    """Letters to compare normal texts by."""
    return "".join(text.casefold().split())


def signs_of(text: str) -> list[Sign]:
    """All signs, from first to last."""
    found = []
    for match in _SIGN.finditer(text):
        written = match["letter"] or match["digit"] or match["glued"]
        option = int(written) - 1 if written.isdigit() else LETTERS.index(written.upper())
        closed = bool(match["number"] or match["close"])
        found.append(Sign(match.start(), match.end(), option, written, closed))
    return found


_SUBJECT = r"(?:正确答案|答案|正解|正答|정답|정담|답안|해답|답변|선택지|선택|보기|답)(?:\s?(?:번호|항목))?"
_LIKELY = r"(?:\s+(?:therefore|thus|clearly|likely|probably|most\s+likely|definitely))?"
BEFORE = re.compile(
    rf"(?:{_SUBJECT}\s?(?:은|는|이|으로는|으로|을|를|是|は|为)?\s*(?:고른다면|고르면|고르자면|다음과\s?같습니다\.?|바로|역시|당연히|아마도?|가장\s?가까운\s?것은)?[\s:：=→,)\]-]*(?:option\s)?"
    r"|(?:적절|적합|옳|맞|올바르|알맞|타당|해당|정확)(?:한|은|는|하는)\s?(?:것|설명|선택지|보기|답|항목|검사|치료|진단|처치)?(?:은|는)\s*[:：]?\s*"
    r"|(?:answer|anwser|asnwer|option|choice|response|ans|solution)(?:\s+(?:here|to\s+th\w+\s+question|letter|number))?"
    rf"(?:는|은)?\s*(?:(?:is|would\s+be|should\s+be|must\s+be|will\s+be|has\s+to\s+be|to){_LIKELY}"
    r"|[:=→-]|->|(?<=는)|(?<=은)|(?<=\bans)\.|(?<=answer\s))[\s:]*(?:the\s+)?(?:option|choice|letter|number|answer)?\s*:?\s*"
    r"|\b(?:I|we)(?:\s+would|\s+will|['’]d|['’]ll|\s+am\s+going\s+to|['’ ]?m\s+gonna)?\s+"
    r"(?:choose|select|pick|take|answer|go\s+with|opt\s+for|say)\s+"
    r"(?:with\s+)?(?:the\s+)?(?:option|choice|answer|letter|number)?\s*"
    r"|\b(?:correct|right|best)\s*(?:one|option|choice)?\s*(?:is|:)\s*(?:option|choice)?\s*)\Z",
    re.IGNORECASE,
)
BEHIND = re.compile(
    r"\A\s?(?:항목|보기|선택지)?(?:이|가|은|는|을|를|로|으로)?\s*(?:바로\s?|가장\s?|제일\s?|확실히\s?|더\s?|최종\s?)*"
    r"(?:정답|맞(?!지)|옳(?!지)|적절(?!하지)|적합(?!하지)|알맞|합당|올바(?!르지)|타당|답(?:이다|입|으로|임|일)|선택(?!지)|고르|고릅|고른|골[라랐]|해당|정정|최선|최적"
    r"|가능성이\s?(?:가장\s?|제일\s?|매우\s?)?(?:높|큽|크))"
    r"|\A(?:이|가)\s[^.,\n]{0,15}정답|\A\s+the\s+(?:correct|right|best)\b"
    r"|\A\s*(?:is|would\s+be|must\s+be|should\s+be|seems|appears\s+to\s+be|looks)\s+(?:therefore\s+|thus\s+|clearly\s+)?"
    r"(?:the\s+|my\s+)?(?:single\s+|most\s+|only\s+|final\s+)*(?:correct|right|best|appropriate|likely|answer|accurate)",
    re.IGNORECASE,
)
COPULA = re.compile(
    r"\A\s?(?:입니다|이다|이에요|예요|이예요|이여|이요|요[.!\s]|요\Z|죠|지요|이지|다[.!\s]|다\Z|임[.\s]|임\Z|인\s?듯|인\s?것\s?같|일\s?것|일\s?가능성"
    r"|이?라고\s?(?:생각|판단|봅|본|할\s?수)|(?:으로|로)\s?(?:판단|생각|보|하겠|갈게|가겠|갑니다|답하|답할|합니다|한다|진단|추정|사료|결정)|에\s?해당|,\s?즉|\s?쪽"
    r"|(?:가|이|만)?\s?남|뿐|[을를]\s?(?:시행|추가|투여)하는\s?것이\s?(?:가장\s?)?(?:옳|적절|맞|타당)|\s?아니겠)"
)
CONNECTIVE = re.compile(
    r"(?:∴|따라서|그러므로|고로|그래서|결국|결론(?:은|적으로)?|즉|고르면|\u110b\u110b|→|=>|⇒|=|->|Q\s?1\s?[.:]"
    r"|\b(?:so|thus|hence|therefore|conclusion|leaves?|leaving|option|choice|number|it\s?['’]?\s?s|is|likely|probably|exclusion|matches|take|its|go\s+with|pick)\b)"
    r"(?:\s+(?:only|option|choice|just|clearly))?[\s:：,-]*\Z",
    re.IGNORECASE,
)
NAMES = re.compile(
    r"(?:diagnosis|treatment|drug|cause|finding|step|organism|agent|test|mechanism|disorder|disturbance|which|that)\s+(?:here\s+)?(?:is|means)\s+(?:an?\s+|the\s+)?\Z|바로\s*\Z",
    re.I,
)
ENDS = re.compile(r"\A\s*(?:[.!~;]|\Z|\n|\u110f|\slisted|\s\(|(?:이|가)?\s?(?:됩니다|된다))")
OPENED = re.compile(
    r"\A\s*(?:[.):,、]|(?:입니다|이다|이에요|예요|이예요|임|요)(?:[.!。\s]|\Z)|\Z|\n|\s*[-–—]\s|\s+\(|\s+(?=[가-힣])|\s+(?:because|since|as|rather)\b)"
)
DENIED = re.compile(
    r"\A\s?(?:항목|보기|선택지)?(?:이|가|은|는|을|를|도|이라서|로|으로)?\s*(?:정답|답|옳은\s?(?:것|답)|맞는\s?(?:것|답)|선택)?(?:이|가|은|는|도|으로)?\s*"
    r"(?:보다는?\s|(?:보기|판단하기|생각하기)\s?(?:는\s?)?(?:어렵|힘들)|아니(?!겠)|아닙|아님|아닌|않|없|틀[리렸린립]|오답|제외|배제|될\s?수\s?없|볼\s?수\s?없|맞지\s?않|옳지\s?않|적절하지\s?않|부적절)"
    r"|\A\s*(?:is|was|can)?\s*(?:not\b|n['’]t\b|unlikely|incorrect|wrong|ruled\s+out)",
    re.IGNORECASE,
)
NOT = re.compile(
    r"(?:\bnot|n['’]t|\bneither|\bnor|\brather\s+than|\binstead\s+of|\bexclud\w+|\brul\w+\s+out|\beliminat\w+)\s+(?:be\s+|option\s+|choice\s+)?\Z",
    re.IGNORECASE,
)
BUT = re.compile(r"(?:아니라|아니고|아닌|,?\s*\bbut)\s*(?:option\s+|rather\s+)?\Z", re.IGNORECASE)
ALSO = re.compile(
    r"\A\s?(?:,|/|·|와|과|및|그리고|또는|혹은|이나|거나|or\b|and\b|&|\+)\s*(?:option\s+|choice\s+)?\Z", re.IGNORECASE
)
NOTHING = re.compile(r"\W*(?:(?:option|choice|letter|number|선택지|보기)\s+)?\W*", re.IGNORECASE)
ARTICLE = re.compile(r"\A[ \t]+[a-z]")
REFUSES = re.compile(
    r"(?:할|드릴|고르지|정할|판단할|알|내릴|결정할)\s?(?:수\s?(?:가\s?|는\s?)?없|못)|못하겠|어렵습니다|어려워|죄송|취소합|상담하|모르겠"
    r"|\b(?:cannot|can['’ ]?t|unable|sorry|not\s+sure\s+which|do\s?n['’ ]?t\s+know|consult|unclear)\b",
    re.IGNORECASE,
)
MARKED = re.compile(r"정답|✅|✔|correct\b|←|⬅", re.IGNORECASE)
JOINS = re.compile(r"\b(?:and|or|between)\s\Z|\d\s?\w*\sto\s\Z|사이")
JOINED = re.compile(r"\A(?:(?:은|는)\s|\s*:\s|\s?(?:과|와|및|에서)\s|,\s?[A-Z]\b|\s+(?:and|or|to)\s|\s\d+\s?IU)")
OPEN_END = re.compile(r"(?:은|는|이|가|며|면|고|and|the|a|of|with|is|was|are|to|for)\s*\Z|\?\s*\Z|:\s*\Z")
WRONG = re.compile(r"오답|아님|아니|❌|✗|incorrect|not\s+correct", re.IGNORECASE)
FINISHES = re.compile(r"\A\s*(?:입니다|이다|이에요|예요|이네요|네요|임|instead)?\s*[.!~]?\s*\Z")
LEADS = re.compile(r"(?:=>?|→|\bchoose|\bpick|\bselect|\bmeans|\bstart)\W+(?:\w+\W+){0,3}\w+", re.IGNORECASE)
CONDITION = re.compile(r"\b(?:when|if|whether)\b", re.IGNORECASE)
