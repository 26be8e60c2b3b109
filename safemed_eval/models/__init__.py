"""Models: anything that answers a question about an image.

    >>> model = find_model("builtin:sft")   # found and checked by its files; no torch yet
    >>> waist = model.waist                 # loaded on first use: waist.classify(questions), waist.vote(question)

Everything that knows transformers, tokens or a model family is inside this folder.
"""

from __future__ import annotations

from safemed_eval.models.checkpoints.prompts import Asking
from safemed_eval.models.files.contents import Allowed
from safemed_eval.models.kinds import kind_of, resolve
from safemed_eval.models.loading import load, load_to_train, quiet_transformers
from safemed_eval.models.model import AnyModel, Loading, Model, find_model, load_model
from safemed_eval.models.source import Source

__all__ = [
    "Allowed",
    "AnyModel",
    "Asking",
    "Loading",
    "Model",
    "Source",
    "find_model",
    "kind_of",
    "load",
    "load_model",
    "load_to_train",
    "quiet_transformers",
    "resolve",
]
