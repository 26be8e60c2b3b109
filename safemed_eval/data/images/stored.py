"""The stored values of one frame of a DICOM file: the elements that describe them, their bits, and their padding."""

from __future__ import annotations

import numpy as np
import pydicom
from pydicom.pixels import pixel_array
from pydicom.uid import HTJ2K, JPEG2000, JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless

from safemed_eval.data.images.picture import Mask, Values
from safemed_eval.errors import DataError

_PIXELS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
_NEEDED = ("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "BitsAllocated")
_NEEDED_OF_INTEGERS = ("BitsStored", "PixelRepresentation")

SINGLE_NUMBERS = (
    *("Rows", "Columns", "SamplesPerPixel", "PlanarConfiguration", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "RescaleSlope", "RescaleIntercept"),
    *(f"{kind}PixelPadding{part}" for kind in ("", "Float", "DoubleFloat") for part in ("Value", "RangeLimit")),
)
_WINDOWS = ("WindowCenter", "WindowWidth")

_LOSSY = (JPEGBaseline8Bit, JPEGExtended12Bit, JPEGLSNearLossless, JPEG2000, HTJ2K)
"""Here a value beyond BitsStored may also be an error of the compression."""


def refuse_incomplete(dataset: pydicom.Dataset) -> None:
    """Raise DataError for a file without an element that its pixels need."""
    if "TransferSyntaxUID" not in dataset.file_meta:
        raise DataError("it has no TransferSyntaxUID, which its pixels need; correct the file")
    held = {
        name for name in (*_PIXELS, *_NEEDED, *_NEEDED_OF_INTEGERS) if name in dataset and not dataset[name].is_empty
    }
    if held.isdisjoint(_PIXELS):
        raise DataError("it holds no pixels: its PixelData is missing or empty")
    for name in (*_NEEDED, *(_NEEDED_OF_INTEGERS if "PixelData" in held else ())):
        if name not in held:
            raise DataError(f"it has no {name}, which its pixels need; correct the file")


def refuse_malformed(dataset: pydicom.Dataset) -> None:
    """Raise DataError for an element that should be a number, and is something else, or several."""
    for name in (*SINGLE_NUMBERS, *_WINDOWS):
        if name not in dataset:
            continue
        try:
            value = dataset[name].value
            count = np.ravel([] if value is None else value).astype(np.float64).size
        except (TypeError, ValueError):
            text = dataset.get_item(name).value
            text = text.decode(errors="replace").strip() if isinstance(text, bytes) else text
            raise DataError(f"its {name} is {text}, which is not a number; correct it") from None
        if count > 1 and name not in _WINDOWS:
            raise DataError(f"its {name} has {count} values, and should have one; correct it")


def stored_values(dataset: pydicom.Dataset, index: int) -> tuple[Values, Mask]:
    """Decode one frame as (H, W) or (H, W, 3) stored values, and the (H, W) mask of its padding.

    Of greys, bits above BitsStored, where old files keep overlays, are dropped once padding is found: it may use them.
    """
    if "PixelData" not in dataset:
        values = pixel_array(dataset, index=index)
        return values, _padding(values, values, dataset)
    native, grey = not dataset.file_meta.TransferSyntaxUID.is_encapsulated, dataset.SamplesPerPixel == 1
    if native and "HighBit" in dataset and dataset.HighBit != dataset.BitsStored - 1:
        raise DataError(f"HighBit {dataset.HighBit} with BitsStored {dataset.BitsStored}: it must be one less")
    if native and grey and dataset.BitsAllocated == 1:
        words = _bits(dataset, index)
    else:
        words = pixel_array(dataset, index=index, correct_unused_bits=not grey)
    stored, (low, high) = words, limits(dataset, words)
    if words.min() < low or words.max() > high:
        if dataset.file_meta.TransferSyntaxUID in _LOSSY or not grey:
            raise DataError(
                f"its values go from {words.min()} to {words.max()}, which BitsStored {dataset.BitsStored} cannot hold"
            )
        stored = ((words.astype(np.int64) - int(low)) % 2**dataset.BitsStored + int(low)).astype(words.dtype)
    return stored, _padding(words, stored, dataset) if grey else np.zeros(words.shape[:2], bool)


def limits(dataset: pydicom.Dataset, stored: Values) -> tuple[float, float]:
    """The least and the greatest value that can be stored; of floating-point pixels, that is stored."""
    if "PixelData" not in dataset:
        return float(stored.min()), float(stored.max())
    low = -(2 ** (dataset.BitsStored - 1)) if dataset.PixelRepresentation else 0
    return low, low + 2**dataset.BitsStored - 1


def _bits(dataset: pydicom.Dataset, index: int) -> Values:
    """Unpack a frame of 1-bit pixels: frames follow each other without a gap, the first pixel in the lowest bit.

    pydicom misses the last byte of frames that begin within a byte.

    Source:
        PS3.5 8.1.1 and D.
    """
    size, count = dataset.Rows * dataset.Columns, int(dataset.get("NumberOfFrames") or 1)
    if (held := len(dataset.PixelData)) < (needed := (size * count + 7) // 8):
        raise DataError(f"its PixelData has {held} bytes, and its pixels need {needed}; the file is cut off")
    skipped, start = index * size % 8, index * size // 8
    data = dataset.PixelData[start : start + (skipped + size + 7) // 8]
    bits = np.unpackbits(np.frombuffer(data, np.uint8), bitorder="little")[skipped : skipped + size]
    return bits.reshape(dataset.Rows, dataset.Columns)


def _padding(words: Values, stored: Values, dataset: pydicom.Dataset) -> Mask:
    """Mask of padding: PixelPaddingValue, or the range from it to PixelPaddingRangeLimit.

    Args:
        words: with the bits above BitsStored; a padding value that BitsStored cannot hold is only found there.
    """
    kind = next((kind for kind in ("Float", "DoubleFloat") if f"{kind}PixelData" in dataset), "")
    value = dataset.get(f"{kind}PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, bool)
    ends = np.array([value, dataset.get(f"{kind}PixelPaddingRangeLimit", value)])
    if not kind:  # it may be written unsigned where pixels are signed, or the reverse, with the same bits
        sign = "ui"[dataset.PixelRepresentation]
        ends = ends.astype(np.int64).astype(f"{sign}{max(1, dataset.BitsAllocated // 8)}").astype(np.int64)
        _, high = limits(dataset, stored)
        ends = np.where((ends > high) & (ends < 2**dataset.BitsStored), ends - 2**dataset.BitsStored, ends)
    low, high = ends.min(), ends.max()
    inside: Mask = ((words >= low) & (words <= high)) | ((stored >= low) & (stored <= high))
    return inside | np.isnan(stored) if np.isnan(ends).any() else inside
