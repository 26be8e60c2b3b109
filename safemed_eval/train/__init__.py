"""Training: supervised and group relative policy optimization, on clean and on adversarial images, with TRL.

And denoisers for models that stay as they are, in `denoise`.

    >>> policy, model = models.load_to_train(source)
    >>> base = source.reference
    >>> fit.fit(policy, model, items, canvas, recipe, out, base=base, about={})

The module `fit` imports torch, TRL and what they need; the recipe and its parts do not.
"""

from safemed_eval.train._recipe import (
    DenoiserRecipe,
    Groups,
    Lora,
    Method,
    Recipe,
    Threats,
    TrainOptions,
    recipe_of,
)

__all__ = ["DenoiserRecipe", "Groups", "Lora", "Method", "Recipe", "Threats", "TrainOptions", "recipe_of"]
