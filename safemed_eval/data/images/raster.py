"""Decodes PNG, JPEG, TIFF and the other files that Pillow opens; corrects or refuses what Pillow shows wrongly."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from safemed_eval.data.images import jpeg2000
from safemed_eval.data.images.picture import Picture, chosen, grey_to_rgb, refuse_bomb, stretched
from safemed_eval.errors import DataError

FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000")
"""The formats that Pillow may open. Its other readers would be open to crafted files; that of EPS starts a program."""

Tags = Mapping[int, Any]
"""TIFF tag -> its value."""

_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
_TIFF_HEADS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BITS, _COMPRESSION, _PHOTOMETRIC, _ORIENTATION, _PLANAR, _SAMPLE_FORMAT = 258, 259, 262, 274, 284, 339
_JPEG = (6, 7)
_NOT_RGB = {6: "YCbCr", 8: "CIELAB", 9: "ICCLAB", 10: "ITULAB"}
_CLEAR_PNG = {"L;2", "L;4", "RGB;16B"}
"""Layouts in which Pillow compares the transparent colour with values that it has scaled to 8 bits."""


def read(path: Path, frame: int | None) -> Picture:
    """Decode one frame; see `files.decode`."""
    with path.open("rb") as file, _opened(file) as image:  # by its path, Pillow misreads some TIFF that it should turn
        refuse_bomb(image.height, image.width)
        notes = _go_to(image, frame)
        refuse_bomb(image.height, image.width)
        tags = dict(image.tag_v2) if isinstance(image, TiffImageFile) else {}
        settings = [tile[3] for tile in getattr(image, "tile", ())]
        raw = [str(setting) for setting in settings]
        colour_16 = image.mode not in _DEEP_MODES and any(";16" in layout for layout in raw)
        _refuse_misread(image, tags, raw)
        turned, said = (image.format == "JPEG2000" and jpeg2000.deep(file, image)) or _turned(image)
        notes += said
        signed = tags.get(_SAMPLE_FORMAT, (1,))[0] == 2
        if turned.mode in _DEEP_MODES or signed:
            return _deep(turned, tags, notes)
        if turned.mode == "La":
            turned = turned.convert("LA")
        if turned.has_transparency_data:
            turned = turned.convert("RGBA")
            if turned.getchannel("A").getextrema() != (255, 255):
                notes.append("transparency laid on black")
            turned = Image.alpha_composite(Image.new("RGBA", turned.size, (0, 0, 0, 255)), turned)
        if colour_16:
            notes.append("16-bit colour cut to 8 bits")
        if image.format == "PPM" and turned.mode == "RGB" and isinstance(settings[0], tuple):  # layout, largest value
            bits = settings[0][1].bit_length()
            notes += [f"{bits}-bit colour scaled to 8 bits"] if bits > 8 else []
        if turned.mode == "CMYK":
            notes.append("CMYK converted to RGB")
        return Picture(np.asarray(turned.convert("RGB")), tuple(notes))


def _opened(file: IO[bytes]) -> Image.Image:
    try:
        return Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise DataError(f"refused as a decompression bomb: {error}") from None
    except UnidentifiedImageError:
        file.seek(0)
        if file.read(4) in _TIFF_HEADS:
            raise DataError("a TIFF that is broken, or of a depth or layout that cannot be read") from None
        raise


def _go_to(image: Image.Image, frame: int | None) -> list[str]:
    """Seek the frame that is asked for, and return a note that names it.

    Pages of different sizes are not a stack of slices but one image with smaller copies: the first page is the image.
    Of a JPEG, too, only the first image counts, whatever a camera has stored behind it.
    """
    count = 1 if image.format in ("MPO", "JPEG") else getattr(image, "n_frames", 1)
    if frame is None and image.format == "TIFF" and count > 1:
        sizes = set()
        for index in range(count):
            image.seek(index)
            sizes.add(image.size)
        if len(sizes) > 1:
            image.seek(0)
            return [f"frame 1 of {count} (their sizes differ)"]
    index, notes = chosen(frame, count)
    if index:
        image.seek(index)
    return notes


def _refuse_misread(image: Image.Image, tags: Tags, raw: list[str]) -> None:
    """Raise DataError for files that Pillow opens but shows wrongly."""
    kind, packed = tags.get(_PHOTOMETRIC), tags.get(_COMPRESSION) not in (None, 1)
    if kind in _NOT_RGB and not (kind == 6 and tags[_COMPRESSION] in _JPEG):
        raise DataError(f"a TIFF of {_NOT_RGB[kind]} colours cannot be read; save it as RGB")
    if tags.get(_PLANAR) == 2 and 16 in tags.get(_BITS, ()) and not packed:
        raise DataError("a TIFF of 16-bit colours in separate planes cannot be read; save it with interleaved colours")
    if image.format == "PNG" and "transparency" in image.info and not _CLEAR_PNG.isdisjoint(raw):
        raise DataError("a transparent colour in a PNG of this depth cannot be read; save it with an alpha channel")


def _deep(image: Image.Image, tags: Tags, notes: list[str]) -> Picture:
    values = np.asarray(image)
    bits, form = tags.get(_BITS, (0,))[0], tags.get(_SAMPLE_FORMAT, (1,))[0]
    if (bits, form) == (8, 2):
        values = values.view(np.int8)  # Pillow reads the bits as unsigned
    elif (bits, form) == (32, 1):
        values = values.view(np.uint32)  # and these as signed
    clear = image.info.get("transparency")
    seen = np.ones(values.shape, bool) if clear is None else values != clear
    grey = stretched(values, seen)
    notes.append("deep greys stretched to 8 bits")
    if tags.get(_PHOTOMETRIC) == 0:
        grey = 255 - grey
        notes.append("MinIsWhite inverted")
    if not seen.all():
        grey[~seen] = 0
        notes.append("transparency laid on black")
    return Picture(grey_to_rgb(grey), tuple(notes))


def _turned(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Apply the EXIF orientation, and return a note if it changed anything."""
    of_tiff = image.tag_v2.get(_ORIENTATION, 1) if isinstance(image, TiffImageFile) else 1  # applied by load()
    image.load()
    try:
        orientation = max(of_tiff, image.getexif().get(_ORIENTATION, 1))
        turned = ImageOps.exif_transpose(image)
    except Exception:
        return image, ["EXIF data that cannot be read ignored"]
    return turned, ["EXIF orientation applied"] if orientation in range(2, 9) else []
