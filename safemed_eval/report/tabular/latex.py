r"""A table for the LaTeX of a two-column paper: as narrow as it can be, with mathematics, in booktabs' style.

A column that says the same in every row goes to the caption. Headings take several lines; intervals stand beside their
shares or, where that is too wide, below them. What fits no column spans the page, and what fits no page is scaled down.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from safemed_eval.report._text import latex, latex_prose

COLUMN, PAGE = 229.0, 469.0
"""Widths in points of column and page in a two-column `article`; those of most conferences are wider."""
MOST_LINES = 44
"""A table with more lines goes on in another one, since a float is no longer than its page."""
_SETTINGS = ("noise", "n0", "n", "alpha", "items")
"""Columns of figures that a caption can say once, in the order in which it says them."""
_SIZE, _GAP = 8.0, 3.0
"""Size of \footnotesize in a paper of 10 points, and \tabcolsep, in points."""
_SMALLER = 0.88
"""Size of \\scriptsize, in that of \footnotesize."""
_WORDS = 12
"""Longest line of a heading, in letters."""
_SPEC = re.compile(r"(?P<before>grounded, )?(?P<name>[a-z][a-z0-9-]*):(?P<options>[^\s]+=[^\s]+)")
_RADIUS = re.compile(r"(?P<before>grounded, )?r>=(?P<radius>[\d.e-]+)(?P<sigma>s?)")
_INTERVAL = re.compile(r"(?P<share>[^\[\]]*\S) \[(?P<ends>[^\[\]]+)\](?P<rest>.*)")
_RANGE = re.compile(r"(?<=\d)-(?=\d)")
_MINUS = re.compile(r"(?<![\w.-])-(?=\d)")
_MATHS = {"n0": "n_0", "n": "n", "alpha": r"\alpha"}


@dataclass(frozen=True)
class _Cell:
    """LaTeX of a cell and its interval, each with the text that it shows, which tells its width."""

    tex: str
    text: str
    ends: str = ""
    rest: str = ""

    @property
    def beside(self) -> tuple[str, float]:
        """The cell on one line, and its width in points."""
        ends, width = (
            (rf" {{\scriptsize [{self.ends}]}}", _width(f" [{self.ends}]", _SMALLER)) if self.ends else ("", 0)
        )
        return f"{self.tex}{ends}{latex(self.rest)}", _width(self.text + self.rest) + width

    @property
    def stacked(self) -> tuple[str, str, float]:
        """The cell on two lines, and its width in points."""
        ends = rf"{{\scriptsize {self.ends}{latex(self.rest)}}}" if self.ends or self.rest else ""
        return self.tex, ends, max(_width(self.text), _width(self.ends + self.rest, _SMALLER))


def table_latex(name: str, caption: str, shown: pd.DataFrame, words: int) -> str:
    """Write the table, or several where it is long, with a comment that names the packages that they need.

    Args:
        name: of the label, `tab:NAME`.
        caption: a sentence or a few, as text.
        shown: text, a row each.
        words: how many columns at the left hold names.
    """
    shown, said = _without_settings(shown, words)
    words -= sum(column not in shown.columns for column in said.names)
    caption = " ".join(filter(None, [latex_prose(caption), said.sentence]))
    most = MOST_LINES if _form(shown, words).beside else MOST_LINES // 2
    parts = [shown.iloc[start : start + most] for start in range(0, max(1, len(shown)), most)]
    tables = []
    for number, part in enumerate(parts):
        again = f" (continued, {number + 1} of {len(parts)})" if number else ""
        label = f"{name}-{number + 1}" if number else name
        tables.append(_environment(f"{caption}{again}", label, part, words))
    needs = ",graphicx" * any(r"\resizebox" in table for table in tables)
    return f"% \\usepackage{{booktabs{needs}}}\n" + "\n".join(tables)


@dataclass(frozen=True)
class _Said:
    """What a caption says for columns that were left out."""

    names: list[str]
    sentence: str


def _without_settings(shown: pd.DataFrame, words: int) -> tuple[pd.DataFrame, _Said]:
    """Leave out columns of settings, and of names, that are the same in all rows, and radii beyond every budget."""
    same = {column: str(shown[column].iloc[0]) for column in shown if len(shown) and shown[column].nunique() == 1}
    names = [column for column in shown.columns[:words] if column in same]
    names = names[: words - 1]  # a row needs a name
    settings = [column for column in _SETTINGS if column in same]
    beyond = [column for column, text in same.items() if text == ">ceiling"]
    sentences = [f"{latex(same[column])}." for column in names if same[column] != "n/a"]
    if settings:
        sentences.append(", ".join(_setting(column, same[column]) for column in settings) + ".")
    if beyond:
        radii = ", ".join(_heading(str(column))[0] for column in beyond)
        sentences.append(f"Above the ceiling of the sample budget: {radii}.")
    left = shown.drop(columns=[*names, *settings, *beyond])
    return left, _Said(names, " ".join(sentences))


def _setting(column: str, text: str) -> str:
    if column == "items":
        return f"{latex(text)} items"
    if column == "noise":
        return latex_prose(text)
    relation, number = (r"\leq", text[2:]) if text.startswith("<=") else ("=", text)
    return f"${_MATHS[column]} {relation} {number.replace(',', '{,}')}$"


@dataclass(frozen=True, kw_only=True)
class _Form:
    """How a table is set: its width in points, and whether intervals stand beside their shares or below."""

    width: float
    beside: bool


def _cells(shown: pd.DataFrame, words: int) -> list[list[_Cell]]:
    """The cells of all rows; a name that repeats that of the row above is left out, from the left."""
    rows, above = [], [""] * words
    for values in shown.astype(str).to_numpy().tolist():
        cells = [_cell(text, figures=place >= words) for place, text in enumerate(values)]
        for place in range(words - 1):
            if values[: place + 1] == above[: place + 1]:
                cells[place] = _Cell("", "")
        rows.append(cells)
        above = values[:words]
    return rows


def _form(shown: pd.DataFrame, words: int) -> _Form:
    """The narrowest form, of those that fit the one with fewer lines."""
    cells, room = _cells(shown, words), 2 * _GAP * (len(shown.columns) - 1)
    heads = [max((_width(line) for _, line in _lines(str(column))), default=0.0) for column in shown.columns]
    beside = room + sum(max([head, *(row[place].beside[1] for row in cells)]) for place, head in enumerate(heads))
    below = room + sum(max([head, *(row[place].stacked[2] for row in cells)]) for place, head in enumerate(heads))
    if beside > COLUMN and (below <= COLUMN or beside > PAGE):
        return _Form(width=below, beside=False)
    return _Form(width=beside, beside=True)


def _environment(caption: str, label: str, shown: pd.DataFrame, words: int) -> str:
    """The environment of one table."""
    form = _form(shown, words)
    star = "*" if form.width > COLUMN else ""
    align = "l" * words + "r" * (len(shown.columns) - words)
    tabular = [
        rf"\begin{{tabular}}{{@{{}}{align}@{{}}}}",
        r"\toprule",
        *_heads([_lines(str(column)) for column in shown.columns]),
        r"\midrule",
        *(line for row in _cells(shown, words) for line in _rows(row, form)),
        r"\bottomrule",
        r"\end{tabular}",
    ]
    if form.width > PAGE:
        tabular = [r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%", *tabular, "}"]
    lines = [
        rf"\begin{{table{star}}}",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{label}}}",
        r"\vspace{2pt}",
        r"\footnotesize",
        rf"\setlength{{\tabcolsep}}{{{_GAP:g}pt}}",
        *tabular,
        rf"\end{{table{star}}}",
    ]
    return "\n".join(lines) + "\n"


def _heads(headings: Sequence[Sequence[tuple[str, str]]]) -> list[str]:
    """The rows of headings, whose last lines stand side by side."""
    most = max(map(len, headings), default=1)
    filled = [[("", "")] * (most - len(lines)) + list(lines) for lines in headings]
    return [" & ".join(lines[place][0] for lines in filled) + r" \\" for place in range(most)]


def _rows(row: Sequence[_Cell], form: _Form) -> list[str]:
    if form.beside:
        return [" & ".join(cell.beside[0] for cell in row) + r" \\"]
    lines = [" & ".join(part) + r" \\" for part in zip(*(cell.stacked[:2] for cell in row), strict=True)]
    return [*lines, r"\addlinespace[2pt]"] if any(cell.stacked[1] for cell in row) else lines[:1]


def _cell(text: str, *, figures: bool) -> _Cell:
    if not figures:
        spec = _heading(text)
        return _Cell(*spec)
    found = _INTERVAL.fullmatch(text)
    if found:
        return _Cell(_figures(found["share"]), found["share"], _figures(found["ends"]), found["rest"])
    return _Cell(_figures(text), text)


def _figures(text: str) -> str:
    """Numbers with en dashes between the ends of a range, and minus signs."""
    return _MINUS.sub("$-$", _RANGE.sub("--", latex(text)))


def _lines(heading: str) -> list[tuple[str, str]]:
    """The lines of a heading, each as LaTeX and as the text that it shows."""
    if found := _SPEC.fullmatch(heading):
        before = [("grounded", "grounded")] if found["before"] else []
        return [*before, _name(found["name"]), *map(_option, found["options"].split(","))]
    if found := _RADIUS.fullmatch(heading):
        before = [("grounded", "grounded")] if found["before"] else []
        return [*before, _radius(found["radius"], found["sigma"])]
    lines = [""]
    for word in heading.split():
        if lines[-1] and len(lines[-1]) + len(word) >= _WORDS:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return [(latex(line), line) for line in lines]


def _heading(text: str) -> tuple[str, str]:
    """A condition or radius on one line, as LaTeX and as the text that it shows; other text as it is."""
    if _SPEC.fullmatch(text) or _RADIUS.fullmatch(text):
        lines = _lines(text)
        return ", ".join(tex for tex, _ in lines), ", ".join(plain for _, plain in lines)
    return latex(text), text


def _name(name: str) -> tuple[str, str]:
    spoken = name.upper() if len(name) <= 4 else name
    return latex(spoken), spoken


def _option(text: str) -> tuple[str, str]:
    """An option of an attack: eps and the norm as mathematics, steps as a count."""
    key, equals, value = text.partition("=")
    if key == "eps" and re.fullmatch(r"[\d./e-]+", value):
        return rf"$\epsilon = {value}$", f"e = {value}"
    if key == "norm" and value in ("l2", "linf"):
        return r"$\ell_2$" if value == "l2" else r"$\ell_\infty$", "l2"
    if key == "steps":
        return latex(f"{value} steps"), f"{value} steps"
    return latex(f"{key} {value}" if equals else key), text


def _radius(radius: str, sigma: str) -> tuple[str, str]:
    unit = r"\sigma" if sigma and radius != "0" else ""
    return rf"$r \geq {radius}{unit}$", f"r > {radius}{sigma}"


def _width(text: str, scale: float = 1.0) -> float:
    """The width of a text in points, a little more than that of Computer Modern."""
    return scale * _SIZE * sum(map(_letter, text))


def _letter(letter: str) -> float:
    """The width of a letter in units of the font size."""
    if letter in " .,:;|!'[]()/ijlI":
        return 0.34
    if letter in "-frt":
        return 0.42
    return 0.56 if (letter.islower() and letter not in "mw") or letter.isdigit() else 0.86
