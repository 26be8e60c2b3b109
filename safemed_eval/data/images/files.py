"""Decodes image files to 8-bit RGB and resizes them: PNG, JPEG, BMP, TIFF and a few more, and DICOM.

Whatever is not plain 8-bit RGB or grey leaves a note that says what was done.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

from safemed_eval.data.images import raster
from safemed_eval.data.images.picture import Picture, Pixels
from safemed_eval.data.images.resample import How, placed
from safemed_eval.errors import DataError

MAX_BYTES = 2**30
"""A larger file is refused unread."""


def decode(path: Path, frame: int | None = None) -> Picture:
    """Decode one image file.

    DICOM greys are shown through the file's own window; other greys deeper than 8 bits, and DICOM greys without a
    window, are stretched linearly from their minimum to their maximum. Transparency is laid on black, and padding is
    black. EXIF orientation is applied.

    Args:
        frame: of several, counted from 1; None: the middle one.
    Raises:
        DataError: cannot be read, not an image, truncated, too large, not finite, has no such frame, or is of a kind
            that would not be shown as it is meant.
    """
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise DataError(f"{size:,} bytes are over the limit of {MAX_BYTES:,}")
        with path.open("rb") as file:
            head = file.read(132)
        is_dicom = head[128:] == b"DICM" or path.suffix.lower() == ".dcm"
        if not is_dicom:
            return raster.read(path, frame)
        from safemed_eval.data.images import dicom  # importing pydicom takes long

        return dicom.read(path, frame)
    except DataError as error:
        raise DataError(f"{error}: {path}") from None
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"not an image that can be read ({', '.join(raster.FORMATS)}, DICOM): {path}") from None
    except Exception as error:  # decoders raise all kinds of exceptions on damaged files
        if isinstance(error, OSError) and error.strerror:  # an error of the operating system
            raise DataError(f"cannot read {path}: {error.strerror}") from None
        text = " ".join(str(error).split())
        raise DataError(f"cannot decode {path}: {text[:200] or type(error).__name__}") from error


def fit(pixels: Pixels, size: tuple[int, int] | None, how: How, *, nearest: bool = False) -> Pixels:
    """Resize once, bicubic with antialiasing, to (height, width); `pad` keeps the aspect ratio on black.

    Args:
        nearest: take the nearest pixel instead, so that no new values come up.
    """
    if size is None or pixels.shape[:2] == size:
        return pixels
    height, width = size
    image, by = Image.fromarray(pixels), Image.Resampling.NEAREST if nearest else Image.Resampling.BICUBIC
    if how == "pad":
        inner, corner = placed((pixels.shape[0], pixels.shape[1]), size, how)
        board = Image.new("RGB", (width, height))
        board.paste(image.resize(inner[::-1], by), corner[::-1])
        return np.asarray(board)
    return np.asarray(image.resize((width, height), by))
