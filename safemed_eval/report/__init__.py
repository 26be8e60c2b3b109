"""Reading run folders: breakdowns, tables, figures. No model is loaded here, and no torch."""

from __future__ import annotations

from safemed_eval.report.breakdown import Summary, summarize

__all__ = ["Summary", "summarize"]
