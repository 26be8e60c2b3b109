"""Reading runs: numbers, findings, tables, figures, pages, comparisons. No model is loaded here, and no torch.

The folder can be called: `safemed_eval.report(runs, out)` is `report.make.report`.
"""

from __future__ import annotations

import sys
from types import ModuleType

from safemed_eval.report.make import report
from safemed_eval.report.run import Run, read_all

__all__ = ["Run", "read_all", "report"]


class _Callable(ModuleType):
    __call__ = staticmethod(report)


sys.modules[__name__].__class__ = _Callable
