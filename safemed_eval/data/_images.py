"""From an image file to 8-bit RGB, and from there to the canvas. PNG, JPEG, BMP, TIFF and a few more; DICOM.

Whatever is not plain 8-bit RGB or grey leaves a note that says what was done.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from safemed_eval.errors import DataError

Pixels = np.ndarray[Any, np.dtype[np.uint8]]

MAX_PIXELS = 89_478_485
"""Pillow's own warning limit: a larger image is refused as a decompression bomb."""
MAX_BYTES = 2**30
"""A larger file is refused unread."""

FORMATS = ("PNG", "JPEG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000")
"""What Pillow may open. Its other readers are code that a file could be made for; that of EPS starts a program."""

DICOM_TAGS = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    *(f"{color}PaletteColorLookupTable{part}" for color in ("Red", "Green", "Blue") for part in ("Descriptor", "Data")),
    *(f"Segmented{color}PaletteColorLookupTableData" for color in ("Red", "Green", "Blue")),
)
"""All that is read of a DICOM file: what the pixels need. Names, dates and the rest of its header never get here."""

_DEEP_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")


@dataclass(frozen=True)
class Picture:
    """(H, W, 3) uint8, and notes on what was done to get there."""

    pixels: Pixels
    notes: tuple[str, ...] = ()


def decode(path: Path) -> Picture:
    """Decode one image file.

    Greys deeper than 8 bits are stretched linearly from their minimum and maximum. Transparency is laid on black. EXIF
    orientation is applied. Of several frames the middle one is taken for DICOM, the first one otherwise.

    Raises:
        DataError: cannot be read, not an image, truncated, too large, or not finite.
    """
    try:
        if (size := path.stat().st_size) > MAX_BYTES:
            raise DataError(f"{size:,} bytes are over the limit of {MAX_BYTES:,}: {path}")
        with path.open("rb") as file:
            head = file.read(132)
        picture = _dicom(path) if head[128:] == b"DICM" or path.suffix.lower() == ".dcm" else _pillow(path)
    except DataError:
        raise
    except MemoryError:
        raise
    except UnidentifiedImageError:
        raise DataError(f"not an image that can be read ({', '.join(FORMATS)}, DICOM): {path}") from None
    except Exception as error:  # decoders raise whatever they like on damaged files
        if isinstance(error, OSError) and error.strerror:  # of the system
            raise DataError(f"cannot read {path}: {error.strerror}") from None
        text = " ".join(str(error).split())
        raise DataError(f"cannot decode {path}: {text[:200] or type(error).__name__}") from error
    return picture


def fit(pixels: Pixels, size: tuple[int, int] | None, how: Literal["stretch", "pad"]) -> Pixels:
    """Resize once, bicubic with antialiasing, to (height, width); `pad` keeps the aspect ratio on black."""
    if size is None or pixels.shape[:2] == size:
        return pixels
    height, width = size
    image = Image.fromarray(pixels)
    if how == "pad":
        scale = min(height / pixels.shape[0], width / pixels.shape[1])
        inner = (max(1, round(pixels.shape[1] * scale)), max(1, round(pixels.shape[0] * scale)))
        board = Image.new("RGB", (width, height))
        corner = ((width - inner[0]) // 2, (height - inner[1]) // 2)
        board.paste(image.resize(inner, Image.Resampling.BICUBIC), corner)
        return np.asarray(board)
    return np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))


def _limit(height: int, width: int) -> None:
    if height * width > MAX_PIXELS:
        raise DataError(
            f"{width} x {height} pixels is over the limit of {MAX_PIXELS:,}: refused as a decompression bomb"
        )


def _pillow(path: Path) -> Picture:
    notes = []
    try:
        image: Image.Image = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise DataError(f"refused as a decompression bomb: {error}") from None
    with image:
        _limit(image.height, image.width)
        if _has_more(path):
            notes.append("first of several frames taken")
        colour_16 = image.mode not in _DEEP_MODES and any(";16" in str(tile) for tile in getattr(image, "tile", ()))
        image.load()
        turned, said = _turned(image)
        notes += said
        if turned.mode in _DEEP_MODES:
            notes.append("deep greys stretched to 8 bits")
            return Picture(_grey_to_rgb(_stretch(np.asarray(turned).astype(np.float64))), tuple(notes))
        if turned.has_transparency_data:
            turned = turned.convert("RGBA")
            if turned.getchannel("A").getextrema() != (255, 255):
                notes.append("transparency laid on black")
            turned = Image.alpha_composite(Image.new("RGBA", turned.size, (0, 0, 0, 255)), turned)
        if colour_16:
            notes.append("16-bit colour cut to 8 bits")
        return Picture(np.asarray(turned.convert("RGB")), tuple(notes))


def _has_more(path: Path) -> bool:
    """Whether there is a second frame that can be read. (To count them, all would have to be read.)"""
    try:
        with Image.open(path, formats=FORMATS) as image:
            image.seek(1)
    except Exception:
        return False
    return True


def _turned(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """The image as its EXIF orientation has it, and a note where that is another way."""
    try:
        orientation = image.getexif().get(0x0112, 1)
        turned = ImageOps.exif_transpose(image)
    except Exception:
        return image, ["EXIF data that cannot be read ignored"]
    return turned, ["EXIF orientation applied"] if orientation in range(2, 9) else []


def _dicom(path: Path) -> Picture:
    import pydicom
    from pydicom.pixels import pixel_array

    dataset = pydicom.dcmread(path, specific_tags=list(DICOM_TAGS))
    _limit(int(dataset.get("Rows", 0)), int(dataset.get("Columns", 0)))
    notes, index, frames = ["DICOM"], None, int(dataset.get("NumberOfFrames", 1) or 1)
    if frames > 1:
        index = frames // 2
        notes.append("middle of several frames taken")
    values = pixel_array(dataset, index=index)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        from pydicom.pixels import apply_color_lut

        values = apply_color_lut(values, dataset)
        if values.dtype != np.uint8:
            values = (values.astype(np.float64) / np.iinfo(values.dtype).max * 255).round()
    if values.ndim == 3:
        if values.dtype.kind == "f" or values.min() < 0 or values.max() > 255:
            values = _stretch(values.astype(np.float64))
        return Picture(values.astype(np.uint8), tuple(notes))
    grey, window = _window(values, dataset)
    notes.append(window)
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        grey = 255 - grey
        notes.append("MONOCHROME1 inverted")
    return Picture(_grey_to_rgb(grey), tuple(notes))


def _window(values: np.ndarray[Any, Any], dataset: Any) -> tuple[Pixels, str]:
    """Rescale slope, then the file's first VOI window or LUT; without one, minimum to maximum."""
    from pydicom.pixels import apply_modality_lut, apply_voi_lut

    with np.errstate(all="ignore"):  # what does not fit is infinite, and refused
        rescaled = _finite(apply_modality_lut(values, dataset).astype(np.float64))
    if "VOILUTSequence" in dataset:
        bits = int(dataset.VOILUTSequence[0].LUTDescriptor[2])
        shown = apply_voi_lut(rescaled.round().astype(np.int64), dataset).astype(np.float64)
        return (shown / (2**bits - 1) * 255).clip(0, 255).round().astype(np.uint8), "VOI LUT applied"
    if "WindowWidth" in dataset and "WindowCenter" in dataset:
        if "BitsStored" not in dataset:  # floats: the range that these make is scaled away below
            dataset.BitsStored, dataset.PixelRepresentation = 16, 0
        # Two pixels far outside the window come out as its black and its white.
        far = np.array([-1e12, 1e12])
        black, white = apply_voi_lut(far, dataset)
        scaled = _finite((apply_voi_lut(rescaled, dataset) - black) / (white - black) * 255)
        return scaled.clip(0, 255).round().astype(np.uint8), "VOI window applied"
    return _stretch(rescaled), "no window: stretched from minimum to maximum"


def _finite(values: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """The values, refused where one is not finite: cast to 8 bits it would be black, or white."""
    if not np.isfinite(values).all():
        raise DataError("the image holds NaN or infinite values, or its window or rescale slope does")
    return values


def _stretch(values: np.ndarray[Any, np.dtype[np.float64]]) -> Pixels:
    _finite(values)
    low, high = float(values.min()), float(values.max())
    span = high - low
    if not math.isfinite(span):
        raise DataError(f"its values, from {low:g} to {high:g}, are too far apart")
    if span == 0:
        return np.zeros(values.shape, np.uint8)
    return ((values - low) / span * 255).round().astype(np.uint8)


def _grey_to_rgb(grey: Pixels) -> Pixels:
    return np.repeat(grey[..., None], 3, axis=2)
