"""The validation data of a training: chosen, and checked before anything is loaded."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager

from safemed_eval import attacks
from safemed_eval.data import AnyData, Canvas, Choice, Data, choice_of, choose_data, drawer_of
from safemed_eval.errors import DataError, SpecError
from safemed_eval.models import Asking
from safemed_eval.progress import progress
from safemed_eval.train.watch.settings import Validation, writes_its_thought

_log = logging.getLogger("safemed_eval")


def is_for_tests(data: str) -> bool:
    """True for the split of drawn data on which checkpoints are compared."""
    drawer = drawer_of(data)
    return bool(drawer and drawer[0].for_tests(drawer[1]))


def held_out_of(data: AnyData | None, trained_on: Data | Choice) -> Data | Choice | None:
    """Choose the validation data; named by a string, they are put on the canvas of the training data.

    Raises:
        SpecError: they are the test split, or on another canvas. DataError: they cannot be read.
    """
    if data is None:
        return None
    canvas = trained_on.canvas
    with _named():
        if isinstance(data, str):
            size = "x".join(map(str, canvas.size)) if canvas.size else "native"
            chosen: Data | Choice = choose_data(data, canvas=size, fit=canvas.fit)
        else:
            chosen = choice_of(data)
    if is_for_tests(chosen.name):
        kind = chosen.name.partition(":")[0]
        raise SpecError(
            f"--eval-data {chosen.name}: is the test split, which checkpoints are compared on, and not chosen by; use "
            f"{kind}:split=validation,images=192"
        )
    if chosen.canvas != canvas:
        raise SpecError(
            f"--eval-data {chosen.name}: is on the canvas {chosen.canvas}, --data on {canvas}; eps is measured on one"
        )
    return chosen


def check_attack(validation: Validation | None, canvas: Canvas, asking: Asking) -> None:
    """Warn of an attack that is weak on a model that thinks.

    Raises:
        SpecError: the attack of the evaluations cannot be made on these images, or under this template.
    """
    if validation is None:
        return
    attack = attacks.parse(validation.attack)
    thinks = asking.template is not None and writes_its_thought(asking.template)
    if thinks and attack.facts.aims_at == "letter":
        _log.warning(
            "--eval-attack %s: climbs on the letters without a thought, and is weak on a model that thinks: accuracy "
            "under it is too high; adaptive:eps=4/255 is stronger, and slow",
            attack,
        )
    if "texts" in attack.needs and not thinks:
        raise SpecError(
            f"--eval-attack {attack}: is for models that write a thought before they answer, as --template think asks "
            "them to"
        )
    if canvas.size:
        try:
            attack.refuse_canvas(*canvas.size)
        except ValueError as error:
            raise SpecError(f"--eval-attack {attack}: {error}") from None


def verified(chosen: Data | Choice | None, trained_on: Data) -> Data | None:
    """Open the images of the validation data, and warn of those that are trained on.

    Raises:
        DataError: one of them cannot be used.
    """
    if isinstance(chosen, Choice):
        with _named(), progress("reading validation images", transient=True) as tick:
            chosen = chosen.verified(tick)
    if chosen is None:
        return None
    seen = {digest for item in trained_on.items for digest in (item.image_sha256, item.pixels_sha256)} - {None}
    shared = [item for item in chosen.items if {item.image_sha256, item.pixels_sha256} & seen]
    if shared:
        _log.warning(
            "--eval-data: %d of %d items are about images that are trained on; accuracy on these says nothing about "
            "new images",
            len(shared),
            len(chosen.items),
        )
    return chosen


@contextmanager
def _named() -> Iterator[None]:
    """Let error messages about data name the option that these data were given with."""
    try:
        yield
    except (DataError, SpecError) as error:
        raise type(error)(f"--eval-data: {str(error).removeprefix('--data ')}") from None
