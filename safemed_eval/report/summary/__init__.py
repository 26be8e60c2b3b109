"""The numbers of a run, in all and by slice, and the facts beside them: what tables, figures and pages show."""

from __future__ import annotations

from safemed_eval.report.summary.measure import Part, answers_measure, certificates_measure
from safemed_eval.report.summary.numbers import DAGGER, FAILED_ITEMS, FEW, Answered, AnsweredBy, Certified, Share
from safemed_eval.report.summary.whole import (
    AnySummary,
    CertifySummary,
    EvaluateSummary,
    Noted,
    Numbers,
    Summary,
    certify_summary,
    evaluate_summary,
    smooth_words,
    summarize,
)

__all__ = [
    "DAGGER",
    "FAILED_ITEMS",
    "FEW",
    "Answered",
    "AnsweredBy",
    "AnySummary",
    "Certified",
    "CertifySummary",
    "EvaluateSummary",
    "Noted",
    "Numbers",
    "Part",
    "Share",
    "Summary",
    "answers_measure",
    "certificates_measure",
    "certify_summary",
    "evaluate_summary",
    "smooth_words",
    "summarize",
]
