"""Randomized smoothing: noise, votes, certificates. Sees only a Vote, never a question or a token."""

from __future__ import annotations

from safemed_eval.smoothing._spec import Smoothing
from safemed_eval.smoothing._votes import read_votes

__all__ = ["Smoothing", "read_votes"]
