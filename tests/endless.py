"""A decoder, for processes that read images, that never comes to the end of a file named bomb."""

from __future__ import annotations

from threading import Event
from typing import Any

from safemed_eval.data.images.fingerprints import fingerprint
from safemed_eval.data.images.paths import Place


def look(place: Place) -> Any:
    file = place.path
    if file.stem == "bomb":
        file.with_suffix(".begun").touch()
        Event().wait()
    return fingerprint(place)
