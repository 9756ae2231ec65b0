"""Personal data written in words: Korean addresses, and names behind a cue or beside a patient's title."""

from __future__ import annotations

import re
from collections.abc import Iterator

_PROVINCE = (
    "(?:서울|부산|대구|인천|광주|대전|울산|세종|경기|강원|충청[남북]|충[남북]|전라[남북]|전[남북]|경상[남북]|경[남북]|제주)"
    "(?:특별자치시|특별자치도|특별시|광역시|시|도)?"
)
_NUMBER = r"\d{1,4}(?:-\d{1,4})?(?![\d-])"
_ADDRESS = re.compile(
    rf"{_PROVINCE}(?: ?[가-힣]{{1,5}}[시군구](?![가-힣])){{0,2}}(?: [가-힣0-9]{{1,6}}[읍면])?"
    rf"(?: [가-힣0-9.]{{1,12}}(?:로|길)(?: ?\d{{1,4}}[가-힣]{{0,3}}길)? ?{_NUMBER}"
    rf"|(?: [가-힣0-9]{{1,8}}[동리가]){{1,2}} (?:산 ?)?{_NUMBER}(?:번지)?(?! ?의 ?\d))"
    r"(?:[, ]{1,2}(?:[가-힣]{1,12} ?)?\d{1,4}동(?= ?\d))?(?:[, ]{0,2}\d{1,2}층)?(?:[, ]{0,2}\d{1,5}호)?"
)

# A place that the public knows: a point, a tract of several lots, what stands there; nobody's home.
_OF_A_PLACE = re.compile(r"(?:지점|소재지|위치|장소)(?:[은는]|\s?[:=|])?\s?$")
_LOT = r"\d{1,4}(?:(?:-| ?의 ?)\d{1,4})?(?:번지)?"
_OFFICE = "(?:원|대학교?|학교|청|관|법원|공사|공단|센터|병원|본부|연구소|사무소|공원|역)"
_NAMES_A_PLACE = re.compile(
    rf"(?:(?:, ?| 및 ?){_LOT})* ?(?:부터|까지|인근|일대|일원|부근)|에 (?:있는|있던|위치|소재|설치)"
    rf"| ?\([가-힣 ]{{0,12}}{_OFFICE}(?=[ )에의,])"
)
_LIVES = re.compile(r"^.{0,12}?(?:거주|산다|살)", re.DOTALL)
_OF_A_HOME = re.compile(r"(?:주소지?|거주지?|자택|본적|배송지|집)(?:[은는])?\s?[:=|]?\s?$")

_DISTRICT = re.compile(r" ?[가-힣]{1,5}[시군구] ")
_HANGUL_END = re.compile(r"[가-힣]$")

_SURNAMES = frozenset(
    "김이박최정강조윤장임한오서신권황안송전홍유고문양손배백허남심노하곽성차주우구나민진지엄채원천방공현함변염여추도소석"
    "선설마길연위표명기반라왕금옥육인맹제모탁국어은편용"
)
_TWO = ("남궁", "황보", "제갈", "선우", "독고", "사공", "서문")
# Of given names. Behind other cues than a hospital's own, a name must be made of these alone.
_GIVEN = frozenset(
    "가강건경계고관광교구국권규균근금기길나남노다단달담대덕도동두라란래려련렬령례로록루린림마만말명모목무문미민박반"
    "배백범별병보복본봉부빈사산삼상새서석선설섭성세소솔송수숙순슬승시식신아안애양언연열영예오옥온완용우욱운웅원월"
    "유윤율으은을음의이익인일임자잔장재전정제조종주준중지진찬창채천철청초춘충치태택표필하학한해향헌혁현형혜호홍화"
    "환효후훈휘희늘솔별봄람빛슬"
)
# Words that look like names and stand where names do, met in laws, product help and reviews.
_NO_NAME = frozenset(
    re.findall(
        "[가-힣]+",
        """
        고령 고위험 고위험군 고유명 공무원 공지사 구분 구성원 기관명 기재 기재란 기존 나이 남성 남성의 담당의
        보호자 서명 서명란 성명 성별 성별란 성인 성인의 소수 소아 소아과 소유자 수술의 신규 신생아 신청
        신청인 신환자 안과의 어려운 어린이 여성 여성의 연락처 연령 우선 원장은 유무 이름 이미지 이상 이외
        이용자 이유서 이하 인원수 일부 임산부 임상의 장애인 전공의 전문의 전원 전체 전화 전환기 정교사 정보
        정보원 정상인 정신과 조무사 주소 주소지 주의사 주치의 지원자 진단 진료 한의사 해당자
        """,
    )
)
_TAIL = re.compile(
    "(?:님|씨|군|양)?(?:께서|에게|한테|이다|이며|이고|이라고?|라고|입니다|으로|로|부터|은|는|이|가|을|를|의|와|과|도|만|님)?$"
)

_WHO = "환자|수진자|수검자|피보험자|가입자|보호자|산모|예금주|대상자|신청인|담당자|대표자|작성자|신고인|피해자"
_HOSPITAL = rf"(?:{_WHO}) ?(?:성명|이름|성함|명)"
_STAFF = "담당 ?의사?|주치의|집도의|수술의|판독의|담당 ?간호사"
_ANY = re.compile(f"환아|성명|이름|성함|{_WHO}|{_STAFF}|님")
_AFTER_HOSPITAL = re.compile(rf"(?:{_HOSPITAL})(?:[은는])? ?[:=|)]? ?(?=([가-힣]{{2,7}}))")
_AFTER_CUE = re.compile(rf"(?:성명|이름|성함|{_WHO}|{_STAFF})(?:[은는])? ?[:=|] ?(?=([가-힣]{{2,7}}))")
_AFTER_PATIENT = re.compile(r"(?:환자|환아|산모) ([가-힣]{3,6})(?: ?(?:님|씨)|[은는이가(,]|(?= ?\())")
_TITLE = re.compile(r"(?:님(?= ?(?:환자|\(|께))|환자|환아|산모)")
_OBJECT = ("을", "를")
_WORD_END = re.compile(r"(?<![가-힣])[가-힣]{3,4}(?= ?$)")


def find_addresses(text: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of postal addresses, by road or by lot, that begin with a province or metropolis.

    Those of places that the public knows are left alone: what the words around say to be a point, a tract or an office.
    """
    for m in _ADDRESS.finditer(text):
        inside = _HANGUL_END.search(text, max(0, m.start() - 1), m.start())
        if not inside and (m[0].startswith("세종") or _DISTRICT.search(m[0])) and not _public(text, *m.span()):
            yield m.span()


def _public(text: str, start: int, end: int) -> bool:
    named, before = _NAMES_A_PLACE.match(text, end), text[max(0, start - 8) : start]
    if _OF_A_HOME.search(before) or not (named or _OF_A_PLACE.search(before)):
        return False
    return not _LIVES.search(text[named.end() if named else end :][:20])


def find_names(text: str) -> Iterator[tuple[int, int]]:
    """Yield start and end of Korean names behind a cue ('환자명: …') and beside a patient's title ('… 환자')."""
    if not _ANY.search(text):
        return
    for cued, strict in ((_AFTER_HOSPITAL, False), (_AFTER_CUE, True), (_AFTER_PATIENT, True)):
        for m in cued.finditer(text):
            if length := _name_length(m[1], strict=strict):
                yield m.start(1), m.start(1) + length
    for m in _TITLE.finditer(text):
        start = max(0, m.start() - 6)
        word = _WORD_END.search(text[start : m.start()])
        if word and word[0][-1] not in "의을를는" and _name_length(word[0], strict=True) == len(word[0]):
            yield start + word.start(), start + word.end()


def _name_length(word: str, *, strict: bool) -> int:
    """How many characters at the start of the word are a name; 0: none."""
    family = 2 if word.startswith(_TWO) else 1
    if family == 1 and word[0] not in _SURNAMES:
        return 0
    for length in (family + 2, family + 1):
        name, rest = word[:length], word[length:]
        if len(name) < length or (rest and not _TAIL.fullmatch(rest)):
            continue
        if name in _NO_NAME or any(name.startswith(no) for no in _NO_NAME if len(no) > 2):
            return 0
        if strict and (length < 3 or not set(name[family:]) <= _GIVEN):
            return 0
        if strict and rest[:1] in _OBJECT:
            return 0  # what a speaker says, not who it is: "환자: 지하철을 …"
        return length
    return 0
