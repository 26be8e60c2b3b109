"""Text of data and models stays text, in whatever a report is read with: one set of hostile texts, in every place.

Nothing here writes DOCX. What gets into Word is a page, a table or a CSV file that is opened or pasted there: among the
texts are those that Word acts on in such a case, its fields, its comments in HTML, and addresses that it would load.
"""

from __future__ import annotations

import csv
import json
import re
from collections import Counter
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from PIL import Image
from synthetic import certified, evaluated, failed, write_run
from test_cli import call

from safemed_eval.report import figures, page, read_all
from safemed_eval.report._text import latex, markdown, plain, spreadsheet
from safemed_eval.report.page import write_page
from safemed_eval.report.tables import tables_of, write_tables

HOSTILE = [
    "<script>hit(1)</script>",
    "</script><script>hit(1)</script>",
    "</style><style>*{display:none}</style>",
    "<img src=x onerror=hit(1)>",
    '" onmouseover="hit(1)',
    "' onfocus='hit(1)",
    "javascript:hit(1)",
    "<a href='javascript:hit(1)'>x</a>",
    "<!-- -->",
    "&lt;b&gt; &amp;",
    "]]><x/>",
    "{{ 7 * 7 }} {% raw %}",
    "[x](javascript:hit(1))",
    "![x](https://evil.example/p.png)",
    "[x]: https://evil.example",
    "<https://evil.example>",
    "https://evil.example/x?y=z",
    "www.evil.example",
    "a | b \\| c ||",
    "`x` ``y`` **b** __i__ ~~s~~ # h",
    "--- \n\n # heading",
    "x\n| --- |\n| y |",
    "$x$ $$y$$",
    "\\input{/etc/passwd}",
    "\\immediate\\write18{touch hit}",
    "^^5cinput{x} % & # _ { } ~",
    "[2cm] x",
    "* x",
    "\\end{tabular} \\\\ \\hline",
    "=1+1",
    '=HYPERLINK("https://evil.example","x")',
    "+cmd|' /C calc'!A0",
    "-2+3+cmd|' /C calc'!A0",
    "@SUM(A1)",
    "\t=1+1",
    "\r=1+1",
    "\n=1+1",
    "\uff1d1+1",
    'x";=1+1;"',
    "x,=1+1",
    "x;=1+1",
    "\u202eevil\u202c \u2066x",
    "\x1b]0;x\x07\x1b[31m\x9b2J",
    "\0\x7f\ufffe",
    "\u2028\u2029",
    "<!--[if gte mso 9]><xml><w:WordDocument/></xml><![endif]-->",
    "<o:p><v:shape><v:imagedata src='https://evil.example/p.png'/></v:shape></o:p>",
    '{ DDEAUTO c:\\\\windows\\\\system32\\\\cmd.exe "/k calc" }',
    '{ INCLUDEPICTURE "https://evil.example/p.png" \\d }',
    "\\\\evil.example\\share\\x.docx",
    "\ud800".encode("utf-16", "surrogatepass").decode("utf-16", "replace"),
]
EVERY = " ".join(HOSTILE)
FORMULAS = [text for text in HOSTILE if text[0] in "=+-@" and "\n" not in text]
CONDITIONS = ("clean", "fgsm:eps=4/255")


def of(number: int, by: int) -> str:
    return HOSTILE[(number + by) % len(HOSTILE)]


def hostile(number: int) -> dict[str, object]:
    """Each text once in each field of an item."""
    return {
        "item": f"{of(number, 0)} {number}",
        "question": of(number, 1),
        "options": [of(number, 2), of(number, 3), of(number, 4)],
        "modality": of(number, 5),
        "question_type": of(number // 8, 6),
        "source": of(number, 7),
        "image": of(number, 8),
        "patient_id": of(number, 9),
        "extra": {of(number, 10): of(number, 11)},
    }


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """An evaluate run whose models write, and a certify run; models, data, errors and notes are hostile, too."""
    folder = tmp_path_factory.mktemp("runs")
    count = len(HOSTILE)
    answers = [evaluated(i, name, i % 3 > 0, text=of(i, 12), **hostile(i)) for i in range(count) for name in CONDITIONS]
    answers[0] |= {"error": EVERY, "prediction": None, "correct": False}
    about = {
        "names": {
            "model": EVERY,
            "denoiser": of(3, 0),
            "data": EVERY,
            "trained": {"method": EVERY, "modality": [EVERY]},
        },
        "skipped": [{"item": EVERY, "reason": EVERY}],
        "sampled": EVERY,
        "image_notes": {EVERY: 3},
        "model": {"device": EVERY, "prompt": EVERY, EVERY: EVERY},
        "sessions": [{"argv": [EVERY], "device": EVERY, "started": EVERY, "versions": {EVERY: EVERY}}],
    }
    spec = {"asking": {"readout": "generate", "template": {"user": EVERY, "cue": EVERY}}}
    write_run(folder / "a", answers, "evaluate", conditions=CONDITIONS, spec=spec, **about)
    votes = [certified(i, 990, **hostile(i)) for i in range(count - 1)] + [failed(count - 1, **hostile(count - 1))]
    write_run(folder / "c", votes, "certify", **about | {"names": about["names"] | {}})
    return [str(folder / "a"), str(folder / "c")]


@pytest.fixture(scope="module")
def tables(runs: list[str], tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tables")
    write_tables(tables_of(read_all(runs), radii="0,1s"), read_all(runs), folder)
    return folder


class _Seen(HTMLParser):
    """Parse a page as a browser does: its elements, their attributes, and the text of its scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.tags: Counter[str] = Counter()
        self.attributes: list[tuple[str, str, str]] = []
        self.comments: list[str] = []

    def handle_comment(self, data: str) -> None:
        self.comments.append(data)

    def unknown_decl(self, data: str) -> None:
        self.comments.append(data)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags[tag] += 1
        self.attributes += [(tag, name, value or "") for name, value in attrs]


def seen(html: str) -> _Seen:
    parser = _Seen()
    parser.feed(html)
    return parser


def test_html(runs: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The elements and attributes of the page are those of its template; links stay on the page."""
    monkeypatch.setattr(page, "_plotly", lambda: "var Plotly = {};")
    write_page(read_all(runs), tmp_path / "p.html", title=EVERY)
    found = seen((tmp_path / "p.html").read_text(encoding="utf-8"))
    assets = Path(page.__file__).parent / "assets"
    template = "".join((assets / name).read_text(encoding="utf-8") for name in ("head.html", "terms.html", "page.html"))
    assert set(found.tags) <= set(re.findall(r"<([a-z][a-z0-9]*)", template))
    assert found.tags["script"] == 5 and found.tags["style"] == 1 and not found.tags["img"]
    known = {*re.findall(r"[\s\"]([a-z-]+)(?==|>)", template), *re.findall(r"\s([a-z-]+)=", template)}
    assert {name for _, name, _ in found.attributes} <= known
    assert not [name for _, name, _ in found.attributes if name.startswith("on")]
    links = [value for _, name, value in found.attributes if name in ("href", "src", "action", "srcdoc", "style")]
    assert set(links) == {value for value in links if value.startswith("#")} | {"data:,"}
    assert not found.comments, "Word reads some comments as markup"
    assert 'src="' not in template, "what the page loads is in it"


TABLE = MarkdownIt("commonmark", {"html": True}).enable("table")


def sound_markdown(text: str) -> None:
    html = TABLE.render(text)
    found = seen(html)
    assert set(found.tags) <= {"p", "table", "thead", "tbody", "tr", "th", "td", "h2", "details", "summary"}, found.tags
    assert not [one for one in found.attributes if one[1] not in ("style", "align")]
    blocks = re.findall(r"(?:^\|.*\n)+", text, re.MULTILINE)
    assert blocks and len(blocks) == found.tags["table"]
    for block in blocks:  # a renderer would drop cells that are too many
        assert len({re.sub(r"\\.", "", line).count("|") for line in block.splitlines()}) == 1
    assert not re.search(r"://|www\.", text), "no address that becomes a link by itself"
    assert not re.search("[\u202a-\u202e\u2066-\u2069\x1b\0]", text)


def test_markdown(tables: Path) -> None:
    files = sorted(tables.glob("*.md"))
    assert len(files) > 8
    for file in files:
        sound_markdown(file.read_text(encoding="utf-8"))


OURS = {
    *("toprule", "midrule", "bottomrule", "begin", "end", "caption", "label", "usepackage"),
    *("centering", "footnotesize", "scriptsize", "setlength", "tabcolsep", "vspace", "addlinespace", "times"),
    *("resizebox", "ifdim", "width", "linewidth", "else", "fi"),
    *("textbackslash", "textasciitilde", "textasciicircum", "dagger", "geq", "leq"),
    *("sigma", "alpha", "epsilon", "ell", "infty"),
}
SCALED = r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%"


def unescaped(line: str) -> Iterator[str]:
    """Commands as \\name, and further characters that mean something to LaTeX."""
    for found in re.finditer(r"\\([A-Za-z]+)|\\(.)|([%#&_$~^{}])", line):
        yield f"\\{found[1]}" if found[1] else (found[2] and f"\\{found[2]}") or found[3]


def test_latex(tables: Path) -> None:
    files = sorted(tables.glob("*.tex"))
    assert len(files) > 8
    for file in files:
        head, *lines = file.read_text(encoding="utf-8").splitlines()
        assert head.startswith("%")
        tables = sum(line.startswith(r"\begin{table") for line in lines)
        assert lines.count(SCALED) == lines.count("}") <= tables
        lines = [line for line in lines if line not in (SCALED, "}")]
        rows = [line for line in lines if line.endswith(r"\\")]
        assert len({Counter(unescaped(row))["&"] for row in rows}) == 1, "every row has as many cells"
        assert not [row for row in rows if row.lstrip()[:1] in ("[", "*")], "options of the row before"
        for line in lines:
            marks = list(unescaped(line))
            assert {mark[1:] for mark in marks if mark[1:].isalpha()} <= OURS, line
            outside = re.sub(r"\$[^$]*\$", "", line.replace(r"\$", ""))
            assert not {"%", "#", "_", "~", "^"} & set(unescaped(outside)), line
            maths = re.findall(r"\$([^$]*)\$", line.replace(r"\$", ""))
            assert all(re.fullmatch(r"[\w .,=<>/{}^-]*", re.sub(r"\\[a-z]+", "", one)) for one in maths), line
            assert marks.count("{") == marks.count("}") and marks.count("$") % 2 == 0, line
        assert sum(line.count(r"\end{") for line in lines) == 2 * tables
        assert sum(line.count(r"\begin{") for line in lines) == 2 * tables > 0


NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?")


def test_csv(tables: Path) -> None:
    """No cell is a formula, whichever delimiter a spreadsheet takes; and the numbers are those of the table."""
    files = [*tables.glob("*.csv"), *tables.glob("*.tsv")]
    assert len(files) > 8
    for file in files:
        text = file.read_text(encoding="utf-8")
        rows = list(csv.reader(text.splitlines(keepends=True), delimiter="\t" if file.suffix == ".tsv" else ","))
        assert len({len(row) for row in rows}) == 1
        cells = [cell for row in rows for cell in row]
        assert not [
            cell
            for cell in cells
            if cell[:1] in tuple("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20") and not NUMBER.fullmatch(cell)
        ]
        if file.suffix == ".csv":
            bare = re.sub(r'"(?:[^"]|"")*"', "", text)
            assert not re.search(r"[^\d.,eE+\-\nTrueFalse]", bare), "every text is quoted"
    numbers = pd.read_csv(tables / "accuracy.csv").set_index("column")
    right = sum(i % 3 > 0 for i in range(len(HOSTILE)))
    assert numbers.loc["clean", "accuracy"] == pytest.approx(right / len(HOSTILE), abs=0.02)
    assert numbers.loc["clean", "items"] == len(HOSTILE)


@pytest.mark.parametrize(
    ("cell", "shown"),
    [
        ("=1", "'=1"),
        ("-1", "-1"),
        ("+1.5e-3", "+1.5e-3"),
        ("-1-1", "'-1-1"),
        (-1.5, -1.5),
        (None, None),
        ("a=1", "a=1"),
    ],
)
def test_numbers_stay_numbers(cell: object, shown: object) -> None:
    assert spreadsheet(cell) == shown


TEXTS = st.lists(st.sampled_from(HOSTILE) | st.text(max_size=8) | st.sampled_from(list("=+-@|\\\n\t'\"<>$_*[]"))).map(
    "".join
)


@given(TEXTS)
def test_any_text_is_a_cell_of_markdown(text: str) -> None:
    """A renderer shows it as it is, and sees neither markup, nor a link, nor a further cell in it."""
    page = MarkdownIt("gfm-like", {"html": True, "linkify": False}).render(f"| h |\n| --- |\n| {markdown(text)} |\n")
    found = seen(page)
    assert set(found.tags) == {"table", "thead", "tbody", "tr", "th", "td"} and found.tags["td"] == 1
    shown = re.search(r"<td>(.*)</td>", page, re.DOTALL)
    assert shown and unescape(shown[1]).split() == plain(text).split()


@given(TEXTS)
def test_any_text_is_a_line_of_latex(text: str) -> None:
    found = latex(text)
    marks = list(unescaped(found))
    assert "\n" not in found and {mark[1:] for mark in marks if mark[1:].isalpha()} <= OURS
    assert not {"%", "#", "_", "~", "^", "&"} & set(marks) and marks.count("{") == marks.count("}")
    assert found[:1] not in ("[", "*")


@given(TEXTS)
def test_any_text_is_a_cell_of_a_spreadsheet(text: str) -> None:
    cell = str(spreadsheet(text))
    assert cell[:1] not in tuple("=+-@\t\r\n") or NUMBER.fullmatch(cell)
    assert cell.removeprefix("'") == plain(text).removeprefix("'") and not re.search("[\x00-\x08\x1b\u202e]", cell)


def test_a_list_of_shared_images(tmp_path: Path) -> None:
    """`data audit --csv` quotes ids, paths and patients."""
    Image.new("L", (8, 8)).save(tmp_path / "x.png")
    rows = [["id", "image", "question", "option_a", "option_b", "answer", "patient_id"]]
    rows += [[f"{text} {number}", "x.png", "q?", "a", "b", "a", text] for number, text in enumerate(FORMULAS)]
    for name in ("a.csv", "b.csv"):
        with (tmp_path / name).open("w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(rows)
    both = [f"table:{tmp_path}/{name}" for name in ("a.csv", "b.csv")]
    code, text = call("data", "audit", *both, "--csv", tmp_path / "s.csv")
    written = (tmp_path / "s.csv").read_text(encoding="utf-8")
    cells = [cell for row in csv.reader(written.splitlines()) for cell in row]
    assert code == 1 and len(cells) > 40 and sum(cell.startswith("'=") for cell in cells) > 2, text
    assert not [cell for cell in cells if cell[:1] in tuple("=+-@\t\r\n") and not NUMBER.fullmatch(cell)]


def test_the_gate(tmp_path: Path) -> None:
    """Markdown for a CI's summary, JUnit XML, and the terminal."""
    for name, right in (("a", 9), ("b", 2)):
        records = [evaluated(i, c, i < right, **hostile(i)) for i in range(len(HOSTILE)) for c in CONDITIONS]
        write_run(tmp_path / f"{name}=<b>", records, "evaluate", conditions=CONDITIONS, weights=name)
    files = {option: tmp_path / f"x.{option}" for option in ("junit", "markdown", "json")}
    options = [part for option, file in files.items() for part in (f"--{option}", file)]
    code, text = call("compare", tmp_path / "a=<b>", tmp_path / "b=<b>", *options)
    assert code == 1
    sound_markdown(files["markdown"].read_text(encoding="utf-8"))
    suites = ElementTree.parse(files["junit"]).getroot()
    assert {one.tag for one in suites.iter()} <= {
        "testsuites",
        "testsuite",
        "testcase",
        "failure",
        "error",
        "system-out",
    }
    assert json.loads(files["json"].read_text(encoding="utf-8"))["verdict"] == "regression"
    assert all(c.isprintable() or c == "\n" for c in text)


def test_the_terminal_and_names_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "kinds", lambda: ["security"])
    about = {"names": {"model": EVERY, "denoiser": None, "data": EVERY}, "sampled": EVERY, "image_notes": {EVERY: 3}}
    records = [
        evaluated(i, c, i > 0, question=EVERY, modality=EVERY, item=f"{EVERY} {i}")
        for i in range(2)
        for c in CONDITIONS
    ]
    runs = [write_run(tmp_path / name, records, "evaluate", conditions=CONDITIONS, **about) for name in ("a", "b")]
    code, text = call("report", *runs, "--out", tmp_path / "r", "--title", EVERY)
    assert code == 0 and all(c.isprintable() or c == "\n" for c in text)
    names = [file.name for file in (tmp_path / "r").rglob("*") if file.is_file()]
    assert len(names) > 10 and all(re.fullmatch(r"[\w.=-]{1,150}", name) for name in names)
