"""Decodes JPEG 2000 colours of more than 8 bits, which Pillow rounds to one more than white, and so shows as black."""

from __future__ import annotations

import struct
from typing import IO

import numpy as np
from openjpeg.utils import decode, get_parameters
from PIL import Image

from safemed_eval.errors import DataError

_START = b"\xff\x4f\xff\x51"
"""The codestream begins with these markers, SOC and SIZ; its components follow after 38 bytes."""
_RGB_OR_UNSAID = ("sRGB", "monochrome", "unspecified", "unknown")


def deep(file: IO[bytes], image: Image.Image) -> tuple[Image.Image, list[str]] | None:
    """Decode deep colours to 8 bits, with a note; None for an image that Pillow decodes rightly.

    Raises:
        DataError: its depth or its colours would be misread.
    """
    place = file.tell()
    file.seek(0)
    content = file.read()
    file.seek(place)
    signs, depths = _components(content)
    bits = max(depths)
    if bits <= 8 or (image.mode == "I;16" and bits <= 16):
        return None
    unknown = image.mode == "CMYK" or get_parameters(content)["colourspace"] not in _RGB_OR_UNSAID
    if unknown or bits > 16 or len(set(depths)) > 1 or any(signs):
        raise DataError(f"a JPEG 2000 of {bits} bits with these colours cannot be read; convert it to PNG")
    values = decode(content)
    if values.ndim == 2:
        return Image.fromarray(values.astype(np.uint16)), []
    white = 2**bits - 1
    scaled = (values / white * 255).round().astype(np.uint8)
    return Image.fromarray(scaled), [f"{bits}-bit colour scaled to 8 bits"]


def _components(content: bytes) -> tuple[list[bool], list[int]]:
    """Of each component, whether it is signed, and its bits.

    Source:
        ISO/IEC 15444-1, A.5.1.
    """
    start = content.find(_START)
    if start < 0:
        raise DataError("a JPEG 2000 without a codestream; the file is broken")
    (count,) = struct.unpack_from(">H", content, start + 40)
    sizes = content[start + 42 : start + 42 + 3 * count : 3]
    return [size >= 128 for size in sizes], [size % 128 + 1 for size in sizes]
