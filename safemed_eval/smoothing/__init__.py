"""Randomized smoothing: noise, votes, certificates. It uses a model only as a Vote, and knows no question or token."""

from __future__ import annotations

from safemed_eval.smoothing.noise import FLOAT32, Kind, Noise, View
from safemed_eval.smoothing.noise.float32 import Float32
from safemed_eval.smoothing.noise.gaussian import Gaussian
from safemed_eval.smoothing.noise.patch import Patch
from safemed_eval.smoothing.options import (
    EXHAUSTIVE,
    FIXED,
    SEQUENTIAL,
    Budget,
    DonorVote,
    Exhaustive,
    Falsification,
    PatchSearch,
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
    read_bands,
    read_prediction,
    read_votes,
    read_wrong,
)

__all__ = [
    "CAP",
    "CERTIFIED",
    "EXHAUSTIVE",
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
    "Exhaustive",
    "Falsification",
    "Float32",
    "Gaussian",
    "Kind",
    "Ladder",
    "Noise",
    "Patch",
    "PatchSearch",
    "Prediction",
    "Sequential",
    "SequentialCertificate",
    "Smoothing",
    "View",
    "Voting",
    "budget_of",
    "read_bands",
    "read_draws",
    "read_prediction",
    "read_votes",
    "read_wrong",
    "two_classes",
    "unpack",
]
