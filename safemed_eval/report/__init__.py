"""Reading runs: numbers, findings, tables, figures, pages, comparisons. No model is loaded here, and no torch."""

from __future__ import annotations

from safemed_eval.report.run import Run, read_all

__all__ = ["Run", "read_all"]
