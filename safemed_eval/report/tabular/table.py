"""One table of a report: text for Markdown and LaTeX (booktabs), and the unrounded numbers behind it for CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from safemed_eval.codec import Json
from safemed_eval.report._text import markdown, spreadsheet
from safemed_eval.report.summary import DAGGER, FEW, Share
from safemed_eval.report.tabular.latex import table_latex


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table.

    Attributes:
        shown: text, as Markdown and LaTeX print it.
        values: the numbers behind it, a row each, for CSV.
        about: what it shows; the first sentence alone must do in a paper.
        caveats: what must be known beside its numbers.
        words: how many of the first columns hold names; the others hold figures.
    """

    name: str
    about: str
    caveats: str = ""
    shown: pd.DataFrame
    values: pd.DataFrame
    words: int

    def write(self, folder: Path) -> Path:
        """Write the table as Markdown, LaTeX and CSV; returns the Markdown file."""
        file = folder / f"{self.name}.md"
        body = self.shown.map(markdown).rename(columns=markdown).to_markdown(index=False, disable_numparse=True)
        file.write_text(f"{markdown(self.caption)}\n\n{body}\n", encoding="utf-8", errors="replace")
        cells = self.values.map(spreadsheet).rename(columns=spreadsheet)
        cells.to_csv(folder / f"{self.name}.csv", index=False, quoting=csv.QUOTE_NONNUMERIC, errors="replace")
        (folder / f"{self.name}.tex").write_text(
            table_latex(self.name, self.brief, self.shown, self.words), encoding="utf-8", errors="replace"
        )
        return file

    @property
    def caption(self) -> str:
        """All of it, as Markdown prints it."""
        return self.about + self.caveats

    @property
    def brief(self) -> str:
        """What LaTeX prints: the first sentence of what the table is about, and the caveats."""
        return self.about.partition(". ")[0].rstrip(".") + "." + self.caveats


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of figures: what is shown, and the numbers behind it, for CSV."""

    text: str
    numbers: Json | None = None


Row = dict[str, str | Cell]
"""By column: a name, or figures. Names come first."""


def table_of(name: str, about: str, rows: Sequence[Row], caveats: str = "") -> Table:
    """Make both faces of a table; its columns are those of all rows."""
    shown, values = [], []
    for row in rows:
        labels = {key: cell for key, cell in row.items() if isinstance(cell, str)}
        cells = {key: cell for key, cell in row.items() if isinstance(cell, Cell)}
        shown.append(labels | {key: cell.text for key, cell in cells.items()})
        values += [labels | {"column": key} | cell.numbers for key, cell in cells.items() if cell.numbers]
    frame = pd.DataFrame(shown).fillna("n/a")
    few = frame.map(lambda text: DAGGER in text).to_numpy().any() if len(frame) else False
    note = f" {DAGGER} {FEW}" if few else ""
    words = sum(isinstance(cell, str) for cell in rows[0].values()) if rows else 0
    return Table(name=name, about=about, caveats=caveats + note, shown=frame, values=pd.DataFrame(values), words=words)


def heading_of(title: str, rows: Sequence[Row]) -> str:
    """What to call a column of the user's data in a table with such rows, whose own columns keep their names."""
    taken = {"column", *(key for row in rows for key in row)}
    taken |= {key for row in rows for cell in row.values() if isinstance(cell, Cell) for key in cell.numbers or ()}
    return f"{title} (data)" if title in taken else title


def share_cell(share: Share, keys: Sequence[str] | None, about: Mapping[str, object] | None = None) -> Cell:
    """A share with its interval in brackets; see `share_numbers` for the keys."""
    bounds = f" [{share.bounds_text}]" if share.bounds_text else ""
    rest = f" ({share.rest_text})" if share.rest_text else ""
    return Cell(
        text=f"{share.text}{bounds}{DAGGER * share.few}{rest}", numbers=dict(about or {}) | share_numbers(share, keys)
    )


def items_of(numbers: Json) -> Json:
    """The same numbers with the number of items under this name: n is that of noisy copies."""
    return {"items" if key == "n" else key: value for key, value in numbers.items()}


def share_numbers(share: Share, keys: Sequence[str] | None) -> Json:
    """The numbers of a share with these keys of its JSON, by default all; and the share without failed items."""
    rest, measured = share.without_failed, items_of(share.to_json())
    kept = [key for key in keys or measured if key != "without_failed"]
    return {key: measured[key] for key in kept} | {"share_without_failed": rest.share if rest else None}
