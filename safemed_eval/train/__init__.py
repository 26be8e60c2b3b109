"""Training with TRL: supervised fine-tuning and GRPO on clean or adversarial images, and denoisers for frozen models.

The package can be called: `safemed_eval.train("at-grpo", ...)` is `train.make.train`. Importing it imports neither
torch nor TRL.
"""

import sys
from types import ModuleType

from safemed_eval.train.make import train
from safemed_eval.train.recipe import (
    Ablation,
    DenoiserRecipe,
    Groups,
    Lora,
    Method,
    Recipe,
    Threats,
    TrainOptions,
    recipe_of,
)

__all__ = ["Ablation", "DenoiserRecipe", "Groups", "Lora", "Method", "Recipe", "Threats", "TrainOptions", "recipe_of"]


class _Callable(ModuleType):
    __call__ = staticmethod(train)


sys.modules[__name__].__class__ = _Callable
