"""Personal data: what is found, what is left alone, and what stands in its place."""

import subprocess
import sys
import time
from collections import Counter
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vocabgraft.corpus.privacy import KINDS, Found, find
from vocabgraft.corpus.pseudonyms import Pseudonyms

WIDE = str.maketrans("0123456789-", "０１２３４５６７８９－")
PLANTED = [
    *(("resident", "{}", value) for value in (
        "900101-1234567", "900101 1234567", "900101–1234567", "900101 - 1234567", "900101.1234567", "900101/1234567",
        "900101-1234567".translate(WIDE), "900101-1******", "900101-2●●●●●●", "9 0 0 1 0 1 - 1 2 3 4 5 6 7",
        "900101-5234567", "211231-3234567", "2112313234567", "9001011234568")),
    ("resident", "주민등록번호: {}", "9001011234567"),
    ("resident", "주민번호 {} (이하 생략)", "900101-1"),
    *(("phone", "{}", value) for value in (
        "010-1234-5678", "01012345678", "010 1234 5678", "010.1234.5678", "010·1234·5678", "010–1234–5678",
        "010)1234-5678", "(010) 1234-5678", "010-1234-5678".translate(WIDE), "+82-10-1234-5678", "+821012345678",
        "+82 (0)10 1234 5678", "010-****-5678", "011-234-5678", "02-123-4567", "02)1234-5678", "031-123-4567")),
    ("phone", "연락처: {}", "0311234567"),
    *(("insurance", "건강보험증번호: {}", value) for value in (
        "1-2345678901", "12345678901", "1 2345678901", "1–2345678901", "1-23456-78901",
        "1-2345678901".translate(WIDE))),
    ("insurance", "보험증 번호는 {}이다", "12345678901"),
    ("chart", "차트번호: {}", "12345678"),
    ("chart", "병록번호 {} 환자", "A-123456"),
    ("chart", "등록번호({})", "00123456"),
    ("chart", "검체번호：{}", "S24-12345"),
    ("chart", "MRN {}", "1234567"),
    ("chart", "환자번호:\n{}", "20240012345"),
    ("account", "국민은행 {}", "123456-78-901234"),
    ("card", "{}", "4111-1111-1111-1111"),
    ("card", "{}", "4111-11**-****-1111"),
    ("business", "사업자등록번호 {}", "220-81-62517"),
    ("licence", "{}", "11-12-345678-90"),
    ("passport", "여권번호 {}", "M12345678"),
    ("email", "문의는 {}으로", "kim.cs@naver.com"),
    ("email", "{}", "info@naver.com"),
    ("email", "원장 {}", "kim@contoso.com"),
    ("address", "{}에 산다", "서울특별시 강남구 테헤란로 123, 101동 1203호"),
    ("address", "주소: {} (공원아파트), 전화 없음", "서울특별시 강남구 테헤란로 123"),
    ("address", "{} 인근에 살던 환자", "경기도 성남시 분당구 정자동 12-3"),
    ("address", "주소: {}(공원병원 옆)", "서울특별시 강남구 테헤란로 123"),
    ("address", "{}, 120/80 mmHg", "경기도 성남시 분당구 정자동 12-3번지"),
    ("address", "{}에 산다", "경기도 성남시 분당구 정자동 12-3번지"),
    ("name", "환자명: {}", "김철수"),
    ("name", "성명 : {}님", "이영희"),
    ("name", "담당의: {}이며", "최은경"),
    ("name", "{} 환자는 어제 왔다", "박지훈"),
]  # fmt: skip
INNOCENT = [
    "WBC 7.21 RBC 4.50 PLT 250 Na 140 K 4.1 AST/ALT 30/28",
    "2024-01-15 10:30 120/80 mmHg 72회",
    "KCD I10.9 및 Z12.3, EDI 645100010, 수가코드 AA157",
    "PMID: 12345678",
    "바코드 8801234567893",
    "8809010112347",
    "1712345678901",
    "법인등록번호 110111-1234567",
    "진료비 1,234,567원, 접수번호 2024-01-15",
    "doi:10.1038/s41586-020-2649-2",
    "9001011234567",
    "git@github.com:a/b, name@example.com, @media, 담당의 이름, 성명 및 주소, 이름: 이미지",
    "65세 이상의 환자, 어린이 환자, 소수의 환자 등",
    "서울특별시 강남구 조례 제12조",
    "문의: support@contoso.com, opencode@microsoft.com, Info@contoso.co.kr",
    "서울특별시 용산구 이태원동 119-3, 119-6 인근에 많은 사람이 몰렸다",
    "경기도 용인시 기흥구 영덕동 450번지, 450의 1번지부터 450의 7번지까지",
    "지점: 경기도 수원시 영통구 월드컵로 92",
    "인천광역시 미추홀구 인하로 100(인하공업전문대학에 있는 원점표석)",
    "부산광역시 서구 구덕로 179에 위치한 병원",
]
PIECES = st.sampled_from(
    [*(s.format(v) for _, s, v in PLANTED), *INNOCENT, "차트번호 ", "환자명: ", "-", " ", "1", "\n"]
)
texts = st.lists(PIECES | st.text(max_size=5)).map("".join)


@pytest.mark.parametrize(("kind", "sentence", "value"), PLANTED)
def test_a_value_is_found_whole_and_named(kind, sentence, value):
    text = f"어제 들었다. {sentence.format(value)}\n혈압 120/80"
    assert [(text[f.start : f.end], f.kind) for f in find(text)] == [(value, kind)]


def test_every_kind_is_tried_above():
    assert {kind for kind, _, _ in PLANTED} == set(KINDS)


@pytest.mark.parametrize("text", INNOCENT)
def test_other_text_is_left_alone(text):
    assert find(text) == []
    assert Pseudonyms().replace(text) == (text, Counter())


@given(
    st.text(st.characters(blacklist_categories=("Nd", "Cs"), blacklist_characters="@＠환성이보담주집수판가피산예대신"))
)
def test_a_text_without_digits_signs_and_cues_stays_as_it_is(text):
    assert Pseudonyms().replace(text) == (text, Counter())


@given(texts)
def test_places_are_in_order_and_apart(text):
    found = find(text)
    assert all(0 <= f.start < f.end <= len(text) for f in found)
    assert all(a.end <= b.start for a, b in pairwise(found))


@given(texts)
def test_replacing_twice_is_replacing_once(text):
    once, _ = Pseudonyms().replace(text)
    assert Pseudonyms().replace(once) == (once, Counter())


@pytest.mark.parametrize(("kind", "sentence", "value"), PLANTED)
def test_nothing_of_a_value_but_its_form_is_left(kind, sentence, value):
    text, counts = Pseudonyms().replace(sentence.format(value))
    assert counts == {kind: 1}
    assert value not in text
    before, _, after = sentence.partition("{}")
    assert text.startswith(before)
    assert text.endswith(after)


def test_one_value_has_one_pseudonym_however_it_is_written():
    forms = ["010-1234-5678", "010 1234 5678", "+82-10-1234-5678", "010-1234-5678".translate(WIDE)]
    said = {Pseudonyms().replace(form)[0].replace("+82-", "0").replace("-", "").replace(" ", "") for form in forms}
    assert len(said) == 1


def test_another_process_and_another_place_give_the_same_pseudonym_and_another_key_another():
    value = "차트번호: 12345678, 010-1234-5678"
    code = (
        f"from vocabgraft.corpus.pseudonyms import Pseudonyms; print(ascii(Pseudonyms().replace('x {value}')[0][2:]))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.strip()
    assert said == ascii(Pseudonyms().replace(value)[0])
    assert Pseudonyms(b"another key").replace(value)[0] != Pseudonyms().replace(value)[0]


@given(st.integers(0, 10**6 - 1))
def test_no_pseudonym_of_a_resident_number_has_a_birthday(n):
    text, counts = Pseudonyms().replace(f"850315-1{n:06d}")
    assert counts == {"resident": 1}
    assert text[2:4] == "00"


def test_a_place_a_pseudonym_maker_and_their_counts_hold_no_text_and_no_key():
    secret = Pseudonyms(b"a key that nobody may see")
    text, counts = secret.replace("주민등록번호 900101-1234567, 환자명: 김철수")
    said = repr([*find("주민등록번호 900101-1234567, 환자명: 김철수"), secret, counts, vars(Found)])
    assert not any(canary in said for canary in ("900101", "1234567", "김철수", "nobody"))
    assert "900101" not in text


@pytest.mark.parametrize(
    "unit",
    [
        "1",
        "1-",
        "1 ",
        "*1",
        "a@",
        "a.",
        "환자명: ",
        "차트번호",
        "김철수 환자 ",
        "서울 강남구 ",
        "+82",
        "010-1234-5678 ",
    ],
)
def test_no_text_takes_more_than_its_share_of_time(unit):
    text = unit * (200_000 // len(unit))
    started = time.process_time()
    find(text)
    assert time.process_time() - started < 20  # 0.1 to 2 s; hours, were it quadratic


@pytest.mark.parametrize(
    "text", ["환자: 지하철을 못 타서 출근하는 데 시간이 두 배로 걸려요.", "보호자: 이하늘을 봤다고 합니다."]
)
def test_what_a_speaker_says_is_no_name(text: str) -> None:
    assert find(text) == []
