"""What people import: a model, data, runs of both, and what is made of runs.

The command line parses its options, calls these functions, and prints; it holds no rule of its own.
"""

from __future__ import annotations

from safemed_eval.api.certify import certify
from safemed_eval.api.check import check_model
from safemed_eval.api.evaluate import evaluate
from safemed_eval.api.plan import plan
from safemed_eval.api.report import report
from safemed_eval.api.train import train
from safemed_eval.data import load_data
from safemed_eval.models import load_model

__all__ = ["certify", "check_model", "evaluate", "load_data", "load_model", "plan", "report", "train"]
