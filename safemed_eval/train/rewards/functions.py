"""Rewards by functions of the user's own: `--reward python:module:function,weight=0.5`."""

from __future__ import annotations

import inspect
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from numbers import Real

from safemed_eval import grammar
from safemed_eval.core import Question
from safemed_eval.errors import RunError, SpecError
from safemed_eval.faults import place_of
from safemed_eval.models.files.contents import factory_identity, import_function

BUILT_IN = ("correct", "kept")
"""The names, in the log, of the two rewards that every training has; see `rewards`."""


@dataclass(frozen=True, kw_only=True)
class RewardFunction:
    """A function that rewards completions, as the training's spec records it.

    It is called with the text of a completion, thought tags included, the question (`.text`, `.options`) and the number
    of the gold option, and returns a number, or None where it does not apply: a completion's reward is the weighted sum
    of those that apply.

    Args:
        function: `python:module:function`; the module is looked up from the current folder, too.
        weight: any finite number; 0 only logs it.
        module_sha256: hash of the module's file, by which a resumed training notices another function.
    """

    function: str
    weight: float = 1.0
    module_sha256: str | None = None

    @property
    def name(self) -> str:
        """The function's own name, by which the log calls the reward."""
        return self.function.rpartition(":")[2]

    def load(self) -> Callable[[str, Question, int], float | None]:
        """Import the function, wrapped in checks of what it does.

        Raises:
            SpecError: there is no such module or function, or it does not take three arguments.
        """
        function = import_function(self.function, SpecError, option="--reward")
        where = f"--reward {self.function}"
        try:
            inspect.signature(function).bind("", None, 0)
        except TypeError as error:
            raise SpecError(f"{where}: is called with (text, question, label), but {error}") from None
        except ValueError:  # a builtin without a signature
            pass

        def rewarded(text: str, question: Question, label: int) -> float | None:
            try:
                value = function(text, question, label)
            except Exception as error:
                raise RunError(f"{where}: raised {place_of(error)}") from error
            if value is None:
                return None
            if not isinstance(value, Real) or not math.isfinite(value):
                raise RunError(f"{where}: returned {value!r:.80}, which is no finite number; return a float or None")
            return float(value)

        return rewarded


def rewards_of(texts: str | Sequence[str]) -> tuple[RewardFunction, ...]:
    """Parse `--reward` options, and import their functions.

    Raises:
        SpecError: one is malformed or cannot be imported, or two have the same name.
    """
    functions = tuple(map(_parsed, [texts] if isinstance(texts, str) else texts))
    for place, one in enumerate(functions):
        if one.name in (*BUILT_IN, *(other.name for other in functions[:place])):
            raise SpecError(f"--reward {one.function}: another reward is called '{one.name}'; rename the function")
        one.load()
    return functions


def _parsed(text: str) -> RewardFunction:
    name, _, rest = text.partition(",")
    if not re.fullmatch(r"python:[\w.]+:\w+", name):
        raise SpecError(f"--reward {text}: write python:package.module:function, and perhaps ,weight=0.5 behind it")
    pairs = grammar.split(f"reward:{rest}")[1]
    if unknown := [key for key in pairs if key != "weight"]:
        raise SpecError(f"--reward {text}: '{unknown[0] or pairs['']}' is not weight=NUMBER")
    weight = grammar.number(pairs.get("weight", "1"), f"--reward {name}: weight")
    return RewardFunction(function=name, weight=weight, module_sha256=factory_identity(name)["module_sha256"])
