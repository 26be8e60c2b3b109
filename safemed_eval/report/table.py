"""One table of a report: text for Markdown and LaTeX (booktabs), and the unrounded numbers behind it for CSV."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from safemed_eval.codec import Json
from safemed_eval.report._text import latex, markdown, spreadsheet
from safemed_eval.report.summary import DAGGER, FEW, Share


@dataclass(frozen=True, kw_only=True)
class Table:
    """One table.

    Attributes:
        shown: text, as Markdown and LaTeX print it.
        values: the numbers behind it, a row each, for CSV.
        words: the first columns, so many, hold names; the others hold figures.
    """

    name: str
    caption: str
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
        (folder / f"{self.name}.tex").write_text(self._latex(), encoding="utf-8", errors="replace")
        return file

    def _latex(self) -> str:
        """A table environment for booktabs."""
        body = (
            self.shown.map(latex)
            .rename(columns=latex)
            .to_latex(
                index=False,
                escape=False,
                column_format="l" * self.words + "r" * (len(self.shown.columns) - self.words),
                caption=latex(self.caption),
                label=f"tab:{self.name}",
            )
        )
        return f"% \\usepackage{{booktabs}}\n{body}"


@dataclass(frozen=True, kw_only=True)
class Cell:
    """A cell of figures: what is shown, and the numbers behind it, for CSV."""

    text: str
    numbers: Json | None = None


Row = dict[str, str | Cell]
"""By column: a name, or figures. Names come first."""


def table_of(name: str, caption: str, rows: Sequence[Row]) -> Table:
    """Make both faces of a table."""
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
    return Table(name=name, caption=caption + note, shown=frame, values=pd.DataFrame(values), words=words)


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


def share_numbers(share: Share, keys: Sequence[str] | None) -> Json:
    """The numbers of a share with these keys of its JSON, by default all; and the share without failed items."""
    rest, measured = share.without_failed, share.to_json()
    kept = [key for key in keys or measured if key != "without_failed"]
    return {key: measured[key] for key in kept} | {"share_without_failed": rest.share if rest else None}
