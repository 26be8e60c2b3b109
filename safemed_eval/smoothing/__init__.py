"""Randomized smoothing: noise, votes, certificates. Sees only a Vote, never a question or a token."""

from __future__ import annotations

from safemed_eval.smoothing._spec import Falsification, Smoothing, Voting
from safemed_eval.smoothing._votes import NO_ANSWER, UNCLEAR, Prediction, read_prediction, read_votes

__all__ = [
    "NO_ANSWER",
    "UNCLEAR",
    "Falsification",
    "Prediction",
    "Smoothing",
    "Voting",
    "read_prediction",
    "read_votes",
]
