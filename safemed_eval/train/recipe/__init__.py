"""All settings of a training: what they are, their limits, and how they are built from options."""

from __future__ import annotations

from safemed_eval.train.recipe.options import TrainOptions, recipe_of
from safemed_eval.train.recipe.parts import Ablation, Aim, Groups, Lora, Threats
from safemed_eval.train.recipe.whole import WARM_UP, DenoiserRecipe, Method, Recipe

__all__ = [
    "WARM_UP",
    "Ablation",
    "Aim",
    "DenoiserRecipe",
    "Groups",
    "Lora",
    "Method",
    "Recipe",
    "Threats",
    "TrainOptions",
    "recipe_of",
]
