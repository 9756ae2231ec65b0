"""Personal data: is what is planted found, and is other text left alone? Ours beside ko-pii and korean-pii.

    python benchmarks/privacy.py            1,000 strings a form, 500 documents a set, 20 MB for the speed
    python benchmarks/privacy.py --quick    200 strings a form, 100 documents a set, 3 MB

Numbers are drawn at random within their form and written in sentences; `recall` is the share that is found whole and
named right, of the worst written form and of all. 13 digits in a row without a cue are resident numbers only with their
check digit or a birthday since it was given up, so only those are drawn bare. `false_positives` is the share of strings
in which anything at all is found. `documents` names what is found in ordinary ones, which needs the development data.

Peers are measured where they are installed (`pip install ko-pii==1.22.15 korean-pii==0.2.0`), more generously: what
they find must touch the value, whatever they call it. ko-pii is measured with its labels of numbers and e-mail alone
(`structured`) and with all (`default`). Last line: one JSON object.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import random
import time
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date, timedelta
from itertools import islice
from pathlib import Path
from typing import Any

from vocabgraft.corpus.clean import clean_text
from vocabgraft.corpus.document import Tally, read_source
from vocabgraft.corpus.privacy import find

DATA = Path("../shared/data")
SETS = ("ko/msdocs.jsonl.zst", "ko/laws.jsonl.zst", "ko/nsmc_reviews.txt.zst", "en/medical.jsonl.zst")
CARRIERS = (
    "{}",
    "{} 확인 바랍니다.",
    "2024-03-02 내원. {}, Hb 12.1 g/dL",
    "보호자가 알려 준 값은 {}이며 다시 물어보기로 함",
    "1) {}\n2) 혈압 120/80",
)
WIDE = str.maketrans("0123456789-", "０１２３４５６７８９－")
Place = tuple[int, int, str]
Finder = Callable[[str], list[Place]]
Draw = random.Random


def digits(draw: Draw, n: int) -> str:
    return "".join(draw.choices("0123456789", k=n))


def resident(draw: Draw, *, checked: bool = False) -> str:
    """13 digits; `checked`: as issued before October 2020, or of one born since."""
    born = date(1930, 1, 1) + timedelta(draw.randrange(35_000))
    front = f"{born:%y%m%d}" + str(draw.choice((1, 2, 5, 6) if born.year < 2000 else (3, 4, 7, 8)))
    number = front + digits(draw, 5)
    if not checked or born >= date(2020, 10, 5):
        return number + digits(draw, 1)
    total = sum(int(d) * w for d, w in zip(number, (2, 3, 4, 5, 6, 7, 8, 9, 2, 3, 4, 5), strict=True))
    return number + str((11 - total % 11 + (2 if number[6] in "5678" else 0)) % 10)


def residents(draw: Draw) -> dict[str, str]:
    n = resident(draw)
    a, b = n[:6], n[6:]
    return {
        "dash": f"{a}-{b}",
        "bare, check digit": resident(draw, checked=True),
        "bare, cue": f"주민등록번호 {n}",
        "space": f"{a} {b}",
        "en dash": f"{a}–{b}",
        "dash and spaces": f"{a} - {b}",
        "dot": f"{a}.{b}",
        "slash": f"{a}/{b}",
        "full width": f"{a}-{b}".translate(WIDE),
        "full width, bare, cue": f"주민번호: {n.translate(WIDE)}",
        "masked by *": f"{a}-{b[0]}******",
        "masked by ●": f"{a}-{b[0]}●●●●●●",
        "digits apart": f"{' '.join(a)} - {' '.join(b)}",
        "zero-width space": f"{a}\u200b-\u200b{b}",
    }


def phones(draw: Draw) -> dict[str, str]:
    a, b, c = digits(draw, 4), digits(draw, 4), draw.choice(("31", "32", "51", "53", "62", "64"))
    return {
        "dash": f"010-{a}-{b}",
        "bare": f"010{a}{b}",
        "space": f"010 {a} {b}",
        "dot": f"010.{a}.{b}",
        "en dash": f"010–{a}–{b}",
        "middle dot": f"010·{a}·{b}",
        "bracket": f"010){a}-{b}",
        "brackets": f"(010) {a}-{b}",
        "full width": f"010-{a}-{b}".translate(WIDE),
        "+82": f"+82-10-{a}-{b}",
        "+82 (0)": f"+82 (0)10 {a} {b}",
        "+82 bare": f"+8210{a}{b}",
        "masked": f"010-****-{b}",
        "old network": f"011-{a[:3]}-{b}",
        "Seoul": f"02-{a}-{b}",
        "Seoul, bracket": f"02){a[:3]}-{b}",
        "province": f"0{c}-{a[:3]}-{b}",
        "landline, bare, cue": f"연락처: 0{c}{a[:3]}{b}",
        "internet": f"070-{a}-{b}",
    }


def insurances(draw: Draw) -> dict[str, str]:
    a, b = str(draw.randint(1, 9)), digits(draw, 10)
    cues = ("건강보험증번호", "건강보험증 번호", "보험증번호", "건강보험 증번호", "의료보험증번호", "의료급여증번호")
    return {
        "dash": f"건강보험증번호: {a}-{b}",
        "bare": f"건강보험증번호: {a}{b}",
        "space": f"건강보험증번호: {a} {b}",
        "en dash": f"건강보험증번호: {a}–{b}",
        "full width": f"건강보험증번호：{(a + '-' + b).translate(WIDE)}",
        "five and five": f"보험증번호 {a}-{b[:5]}-{b[5:]}",
        "dot": f"건강보험번호 {a}.{b}",
        "brackets": f"건강보험증 번호({a}-{b})",
        "particle": f"건강보험증 번호는 {a}{b}",
        "next line": f"건강보험증번호:\n{a}-{b}",
        "other cues": f"{draw.choice(cues)} {a}{b}",
        "English": f"Health insurance No. {a}-{b}",
    }


def charts(draw: Draw) -> dict[str, str]:
    n = digits(draw, draw.randint(5, 10))
    cue = draw.choice(("차트번호", "병록번호", "등록번호", "환자번호", "환자등록번호", "의무기록번호", "차트 번호"))
    english = draw.choice(("MRN", "Chart No.", "Patient ID", "Hospital No", "Pt. No."))
    return {
        "colon": f"{cue}: {n}",
        "space": f"{cue} {n}",
        "particle": f"{cue}는 {n}",
        "brackets": f"{cue}({n})",
        "full width": f"{cue}：{n.translate(WIDE)}",
        "letter": f"{cue}: {draw.choice('ABHPS')}{n}",
        "dash": f"{cue}: {n[:2]}-{n[2:]}",
        "specimen": f"검체번호: S{draw.randint(18, 26)}-{digits(draw, 5)}",
        "accession": f"접수번호 20{draw.randint(18, 26)}{digits(draw, 8)}",
        "English": f"{english} {n}",
    }


def others(draw: Draw) -> dict[str, str]:
    cards = draw.choice("45") + ("1" if draw.random() < 0.5 else "3") + digits(draw, 13)
    doubled = (sum(divmod(2 * int(d), 10)) for d in cards[::-2])
    card = cards + str(-(sum(doubled) + sum(map(int, cards[-2::-2]))) % 10)
    name = draw.choice("김이박최정강조윤장임") + draw.choice("민서지현수영도예") + draw.choice("준우연호은진희아")
    who = "".join(draw.choices("abcdefghijk", k=6))
    street = f"{draw.choice(('테헤란', '세종대', '중앙', '한강대'))}로 {draw.randint(1, 400)}"
    return {
        "card": "-".join(card[i : i + 4] for i in range(0, 16, 4)),
        "account": f"국민은행 {digits(draw, 6)}-{digits(draw, 2)}-{digits(draw, 6)}",
        "email": f"{who}@{draw.choice(('naver.com', 'hanmail.net', 'snu.ac.kr'))}",
        "passport": f"여권번호 {draw.choice('MSR')}{digits(draw, 8)}",
        "licence": f"{draw.randint(11, 26)}-{digits(draw, 2)}-{digits(draw, 6)}-{digits(draw, 2)}",
        "address": f"{draw.choice(('서울특별시 강남구', '부산 해운대구', '경기도 성남시 분당구'))} {street}",
        "name": f"{draw.choice(('환자명: ', '성명: ', '보호자: ', '환자 성명 '))}{name}",
    }


PLANTED: dict[str, Callable[[Draw], dict[str, str]]] = {
    "resident": residents,
    "phone": phones,
    "insurance": insurances,
    "chart": charts,
    "other": others,
}


def innocent(draw: Draw) -> dict[str, str]:
    barcode = draw.choice(("880", "880", "690", "400", "978")) + digits(draw, 9)
    check = -(sum(map(int, barcode[::2])) + 3 * sum(map(int, barcode[1::2]))) % 10
    day = date(2015, 1, 1) + timedelta(draw.randrange(4000))
    return {
        "lab values": f"WBC {draw.uniform(2, 20):.2f} RBC {draw.uniform(3, 6):.2f} PLT {draw.randint(100, 400)} K/uL "
        f"Na {draw.randint(130, 150)} K {draw.uniform(3, 6):.1f} AST/ALT {draw.randint(10, 90)}/{draw.randint(10, 90)}",
        "blood pressure, date": f"{day} {draw.randint(0, 23):02d}:{draw.randint(0, 59):02d} "
        f"{draw.randint(90, 180)}/{draw.randint(50, 110)} mmHg {draw.randint(50, 120)}회",
        "KCD": f"{draw.choice('ABCDEFGHIJKLMN')}{digits(draw, 2)}.{digits(draw, 1)} 및 Z{digits(draw, 2)}",
        "EDI": f"EDI {draw.choice('6')}{digits(draw, 8)}, 수가코드 {draw.choice('ABCDM')}{digits(draw, 4)}",
        "PMID": f"PMID: {draw.randint(1, 39)}{digits(draw, 6)}",
        "barcode": f"바코드 {barcode}{check}",
        "timestamp": f"{draw.randint(1_600_000_000_000, 1_800_000_000_000)}",
        "money": f"진료비 {draw.randint(1, 999)},{digits(draw, 3)},{digits(draw, 3)}원",
        "DOI": f"doi:10.{digits(draw, 4)}/s{digits(draw, 5)}-0{digits(draw, 2)}-{digits(draw, 5)}-{digits(draw, 1)}",
        "dates": f"{day:%Y%m%d}~{day:%Y.%m.%d} 제{digits(draw, 4)}호",
    }


def ours(text: str) -> list[Place]:
    return [(found.start, found.end, found.kind) for found in find(text)]


def peers() -> dict[str, Finder]:
    """Those of the peers that are installed."""
    finders: dict[str, Finder] = {}
    if importlib.util.find_spec("ko_pii"):
        from ko_pii import detect_all

        labels = ["RRN", "FRN", "PHONE", "EMAIL", "MEDICAL_INSURANCE", "CARD", "ACCOUNT", "PASSPORT", "DRIVER_LICENSE"]
        finders["ko_pii_structured"] = lambda text: [
            (r.start, r.end, r.label) for r in detect_all(text, include=labels)
        ]
        finders["ko_pii_default"] = lambda text: [(r.start, r.end, r.label) for r in detect_all(text)]
    if importlib.util.find_spec("korean_pii"):
        from korean_pii import detect

        finders["korean_pii"] = lambda text: [(r.start, r.end, str(r.type)) for r in detect(text)]
    return finders


def recall(finder: Finder, count: int, *, strict: bool) -> dict[str, dict[str, float]]:
    """Share found of each kind and written form."""
    draw, hits = random.Random(0), Counter[tuple[str, str]]()
    for _ in range(count):
        for kind, forms in PLANTED.items():
            for form, written in forms(draw).items():
                before, _, after = draw.choice(CARRIERS).partition("{}")
                text, end = f"{before}{written}{after}", len(before) + len(written.rstrip(")"))
                named = form if kind == "other" else kind
                hits[kind, form] += any(
                    (stop >= end and label == named) if strict else stop > len(before)
                    for start, stop, label in finder(text)
                    if len(before) <= start < end
                )
    shares: dict[str, dict[str, float]] = {}
    for (kind, form), n in hits.items():
        shares.setdefault(kind, {})[form] = round(n / count, 4)
    return shares


def summary(shares: dict[str, dict[str, float]]) -> dict[str, Any]:
    told: dict[str, Any] = dict(shares["other"])
    for kind, forms in shares.items():
        if kind != "other":
            worst = min(forms, key=lambda form: forms[form])
            mean = round(sum(forms.values()) / len(forms), 4)
            told[kind] = {"all": mean, "worst": forms[worst], "worst_form": worst, "forms": len(forms)}
    return told


def false_positives(finder: Finder, count: int) -> dict[str, float]:
    draw, hits = random.Random(1), Counter[str]()
    for _ in range(count):
        for form, text in innocent(draw).items():
            hits[form] += bool(finder(text))
    return {form: round(hits[form] / count, 4) for form in innocent(draw)}


def documents(name: str) -> Iterator[str]:
    return (clean_text(d.text) for d in read_source(str(DATA / name), language="", license="", tally=Tally()))


def flagged(finder: Finder, count: int) -> dict[str, Any]:
    """Documents of each set in which something is found, and what."""
    told = {}
    for name in SETS:
        found = [Counter(label for _, _, label in finder(text)) for text in islice(documents(name), count)]
        told[name] = {"of": len(found), "flagged": sum(map(bool, found)), "kinds": dict(sum(found, Counter()))}
    return told


def speed(finder: Finder, megabytes: float) -> float:
    """MB per CPU-second over the first texts of every set."""
    texts, left = [], dict.fromkeys(SETS, megabytes * 1e6 / len(SETS))
    for name in SETS:
        for text in documents(name):
            left[name] -= len(text.encode())
            texts.append(text)
            if left[name] <= 0:
                break
    started = time.process_time()
    for text in texts:
        finder(text)
    return round(sum(len(text.encode()) for text in texts) / 1e6 / (time.process_time() - started), 2)


def main() -> None:
    """Plant, look, count."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="200 strings a form, 100 documents a set")
    quick = parser.parse_args().quick
    count = 200 if quick else 1000
    shares = recall(ours, count, strict=True)
    told: dict[str, Any] = {
        "recall": summary(shares),
        "false_positives": false_positives(ours, count),
        "peers": {
            name: {"recall": summary(recall(peer, 200, strict=False)), "false_positives": false_positives(peer, 200)}
            for name, peer in peers().items()
        },
    }
    if DATA.is_dir():
        told["documents"] = flagged(ours, 100 if quick else 500)
        told["mb_s_core"] = speed(ours, 3 if quick else 20)
        for name, peer in peers().items():
            told["peers"][name] |= {"mb_s_core": speed(peer, 0.2), "documents": flagged(peer, 10)}
    print(json.dumps(told, ensure_ascii=False))


if __name__ == "__main__":
    main()
