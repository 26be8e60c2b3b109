"""Turns options into the items of a run."""

from __future__ import annotations

from safemed_eval.cli._options import AskedOptions, DataOptions
from safemed_eval.cli._show import progress
from safemed_eval.data import Choice, Data, choose_data


def choose(options: DataOptions, seed: int) -> Choice:
    """Choose the items that these options name."""
    return choose_data(
        options.data,
        root=options.data_root,
        per_group=options.per_group,
        limit=options.limit,
        modality=options.modality or (),
        question_type=options.question_type or (),
        canvas=options.canvas,
        fit=options.fit,
        skip_bad=options.skip_bad,
        shuffle_options=options.shuffle_options if isinstance(options, AskedOptions) else None,
        seed=seed,
    )


def verified(choice: Choice) -> Data:
    """Open the images of the chosen items, with a progress bar."""
    with progress("reading images", transient=True) as tick:
        return choice.verified(tick)
