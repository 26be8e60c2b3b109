"""Randomized smoothing: noise, votes, certificates. It uses a model only as a Vote, and knows no question or token."""

from __future__ import annotations

from safemed_eval.smoothing.noise import FLOAT32, Noise, View
from safemed_eval.smoothing.noise.float32 import Float32
from safemed_eval.smoothing.noise.gaussian import Gaussian
from safemed_eval.smoothing.options import (
    FIXED,
    SEQUENTIAL,
    Budget,
    DonorVote,
    Falsification,
    Sequential,
    Smoothing,
    Voting,
    budget_of,
    two_classes,
)
from safemed_eval.smoothing.sequential import (
    CAP,
    CERTIFIED,
    FUTILE,
    UNPROVED,
    Ladder,
    SequentialCertificate,
    read_draws,
    unpack,
)
from safemed_eval.smoothing.votes import (
    NO_ANSWER,
    UNCLEAR,
    WRONG,
    Prediction,
    read_prediction,
    read_votes,
    read_wrong,
)

__all__ = [
    "CAP",
    "CERTIFIED",
    "FIXED",
    "FLOAT32",
    "FUTILE",
    "NO_ANSWER",
    "SEQUENTIAL",
    "UNCLEAR",
    "UNPROVED",
    "WRONG",
    "Budget",
    "DonorVote",
    "Falsification",
    "Float32",
    "Gaussian",
    "Ladder",
    "Noise",
    "Prediction",
    "Sequential",
    "SequentialCertificate",
    "Smoothing",
    "View",
    "Voting",
    "budget_of",
    "read_draws",
    "read_prediction",
    "read_votes",
    "read_wrong",
    "two_classes",
    "unpack",
]
