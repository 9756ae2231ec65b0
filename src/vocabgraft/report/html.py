"""The report as one HTML page that needs nothing else: no script, no font, no request, readable offline for ever.

The page forbids itself to load anything (Content-Security-Policy), every recorded text is escaped, and a part
whose numbers are missing is left out. The same ledger always gives the same bytes.
"""

from __future__ import annotations

from vocabgraft.report import data_section, numbers, pictures, sections
from vocabgraft.report.ledger import Ledger
from vocabgraft.report.markup import escape, paragraph

_STYLE = """
:root{color-scheme:light dark;--ink:#1f2328;--dim:#59636e;--line:#d1d9e0;--paper:#fff;--soft:#f6f8fa;--mark:#0969da}
@media (prefers-color-scheme:dark){:root{--ink:#e6edf3;--dim:#9198a1;--line:#3d444d;--paper:#0d1117;--soft:#161b22;
--mark:#58a6ff}}
body{margin:2rem auto;max-width:60rem;padding:0 1rem;color:var(--ink);background:var(--paper);
font:16px/1.55 system-ui,"Noto Sans KR","Apple SD Gothic Neo","Malgun Gothic",sans-serif}
h1{margin-bottom:0}h2{margin-top:2.5rem;border-bottom:1px solid var(--line)}
.dim,footer{color:var(--dim)}figure{margin:1rem 0}svg{max-width:100%;height:auto}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(13rem,1fr));gap:.8rem}
.card{background:var(--soft);border:1px solid var(--line);border-radius:.5rem;padding:.7rem 1rem}
.card dt,.card dd{margin:0;color:var(--dim);font-size:.9rem}.card .value{color:var(--ink);font-size:1.7rem}
.wide{overflow-x:auto}table{border-collapse:collapse;margin:1rem 0;font-size:.9rem}
th,td{border-bottom:1px solid var(--line);padding:.3rem .7rem;text-align:left;vertical-align:top;overflow-wrap:anywhere}
td:first-child{min-width:9rem}
.number{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}
.verdict,.answer{border-left:4px solid var(--mark);padding:.2rem 1rem;background:var(--soft)}
.label{font-weight:600;color:var(--mark)}
"""
_POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def render(ledger: Ledger) -> str:
    """The whole page. Give it UTF-8 and a name ending in .html."""
    parts = [
        _header(ledger),
        sections.headline_cards(ledger),
        sections.tokens(ledger),
        sections.new_rows(ledger),
        sections.bakeoff(ledger),
        sections.bits(ledger),
        sections.questions(ledger),
        sections.training(ledger),
        data_section.data(ledger),
        sections.steps(ledger),
        sections.deployment(ledger),
        sections.served(ledger),
        sections.events(ledger),
        sections.licences(ledger),
        sections.versions(ledger),
    ]
    body = "\n".join(part for part in parts if part)
    return (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(ledger.name)} – vocabgraft report</title>\n"
        f"<style>{_STYLE}{pictures.STYLE}</style>\n</head>\n<body>\n{body}\n{_FOOTER}\n</body>\n</html>\n"
    )


_FOOTER = (
    "<footer><p>Written by vocabgraft from the records of this run; every figure is in a manifest.json of the run "
    "folder. Models and answers are for research, not for clinical use.</p></footer>"
)


def _header(ledger: Ledger) -> str:
    facts = [
        ("base", ledger.setting("base", "name")),
        ("language", ledger.setting("data", "language")),
        ("budget", ledger.setting("budget")),
        ("last event", numbers.moment(ledger.events[-1].get("time")) if ledger.events else ""),
    ]
    line = " · ".join(f"{name}: {value}" for name, value in facts if value)
    title = ledger.setting("title")
    return f"<header>\n<h1>{escape(ledger.name)}</h1>\n{paragraph(title)}\n{paragraph(line, 'dim')}\n</header>"
