"""The Python API: `evaluate`, `certify`, `plan`, `check_model`, `merge_adapter`. Import them from `safemed_eval`.

The command line parses its options, calls these functions, and prints the results.
"""

from __future__ import annotations

from safemed_eval.api._certify import certify
from safemed_eval.api._check import check_model
from safemed_eval.api._evaluate import evaluate
from safemed_eval.api._merge import merge_adapter
from safemed_eval.api._plan import Plan, plan

__all__ = ["Plan", "certify", "check_model", "evaluate", "merge_adapter", "plan"]
