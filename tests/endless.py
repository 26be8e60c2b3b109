"""A decoder, for processes that read images, that never comes to the end of a file named bomb."""

from __future__ import annotations

from threading import Event
from typing import Any

from safemed_eval.data.audit import look as _look
from safemed_eval.data.images.files import Place


def look(place: Place) -> Any:
    file = place.path
    if file.stem == "bomb":
        file.with_suffix(".begun").touch()
        Event().wait()
    return _look.look(place)
