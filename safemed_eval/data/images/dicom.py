"""Decodes DICOM files as viewers show them: rescaled, windowed, inverted where the file says so, padding black.

pydicom decodes, rescales, windows and applies lookup tables. This module chooses the frame, gathers the elements that
describe it, and refuses files that pydicom would show differently from what they mean.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi, apply_windowing, pixel_array

from safemed_eval.data.images.picture import (
    Mask,
    Picture,
    Pixels,
    Values,
    Window,
    chosen,
    finite,
    grey_to_rgb,
    refuse_bomb,
    stretched,
)
from safemed_eval.errors import DataError

_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_MACROS = {
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
}
"""The parts of an enhanced file's functional groups that are read, and the elements of each."""

_PALETTES = ("Red", "Green", "Blue")

DICOM_TAGS = (
    *("Rows", "Columns", "SamplesPerPixel", "PhotometricInterpretation", "PlanarConfiguration", "NumberOfFrames"),
    *("BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation"),
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
    *(f"{kind}PixelPadding{part}" for kind in ("", "Float", "DoubleFloat") for part in ("Value", "RangeLimit")),
    *("RescaleSlope", "RescaleIntercept", "ModalityLUTSequence"),
    *("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence", "PresentationLUTShape"),
    *(f"{color}PaletteColorLookupTable{part}" for color in _PALETTES for part in ("Descriptor", "Data")),
    *(f"Segmented{color}PaletteColorLookupTableData" for color in _PALETTES),
    *_GROUPS,
)
"""The only elements that are read of a DICOM file: those that the pixels need. Names, dates and the rest of the header
are never read; functional groups are read whole, and only `_MACROS` is kept of them."""

_COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")


def read(path: Path, frame: int | None) -> Picture:
    """Decode one frame; see `files.decode`."""
    dataset = pydicom.dcmread(path, specific_tags=list(DICOM_TAGS))
    refuse_bomb(int(dataset.get("Rows") or 0), int(dataset.get("Columns") or 0))
    count = int(dataset.get("NumberOfFrames") or 1)
    index, said = chosen(frame, count)
    _gather(dataset, index)
    native = not dataset.file_meta.TransferSyntaxUID.is_encapsulated
    if native and "HighBit" in dataset and dataset.HighBit != dataset.BitsStored - 1:
        raise DataError(f"HighBit {dataset.HighBit} with BitsStored {dataset.BitsStored}: it must be one less")
    stored = pixel_array(dataset, index=index)
    if dataset.get("PixelRepresentation") and "BitsStored" in dataset and stored.max() >= 2 ** (dataset.BitsStored - 1):
        raise DataError(f"its values go up to {stored.max()}, which {dataset.BitsStored} signed bits cannot hold")
    kind, window = dataset.PhotometricInterpretation, None
    if kind == "PALETTE COLOR":
        shown, how = _palette(stored, dataset)
    elif stored.ndim == 3:
        shown, how = _colour(stored, dataset)
    elif kind in ("MONOCHROME1", "MONOCHROME2"):
        grey, window, how = _grey(stored, dataset)
        shown = grey_to_rgb(grey)
    else:
        raise DataError(f"one sample a pixel cannot be {kind}")
    return Picture(shown, ("DICOM", *said, *how), window)


def _gather(dataset: pydicom.Dataset, index: int) -> None:
    """Move the frame's elements from the functional groups to the root, where pydicom looks, and drop the groups.

    A group of the frame overrides a shared one, and either overrides the root. Empty elements are removed.
    """
    shared, each = (dataset.get(name) or [] for name in _GROUPS)
    if each and index >= len(each):
        raise DataError(f"PerFrameFunctionalGroupsSequence describes {len(each)} frames, and not frame {index + 1}")
    for macro, names in _MACROS.items():
        for group in (*shared[:1], *each[index : index + 1]):
            for item in (group.get(macro) or [])[:1]:
                for name in names:
                    dataset.pop(name, None)
                    if name in item:
                        dataset.add(item[name])
    for name in (*_GROUPS, *DICOM_TAGS):
        if name in _GROUPS or (name in dataset and dataset[name].is_empty):
            dataset.pop(name, None)


def _grey(stored: Values, dataset: pydicom.Dataset) -> tuple[Pixels, Window | None, list[str]]:
    """Convert (H, W) stored values to grey levels, with notes, and with their window where it is a straight line."""
    seen = ~_padding(stored, dataset)
    with np.errstate(all="ignore"):  # overflow gives infinity, which is refused
        values, notes = _rescaled(stored, dataset)
        finite(values[seen])
        exact, slope, how = _windowed(values, seen, dataset)
    grey = exact.round().astype(np.uint8)
    notes += how
    inverted = None
    if dataset.PhotometricInterpretation == "MONOCHROME1":
        inverted = "MONOCHROME1 inverted"
    elif str(dataset.get("PresentationLUTShape")).strip().upper() == "INVERSE":
        inverted = "presentation LUT INVERSE: inverted"
    if inverted:
        grey, exact = 255 - grey, 255 - exact
        notes.append(inverted)
    if not seen.all():
        grey[~seen] = exact[~seen] = 0
        notes.append("padding left out")
    gain = 0.0 if slope is None or "ModalityLUTSequence" in dataset else abs(slope * dataset.get("RescaleSlope", 1.0))
    cut = float(((exact <= 0) | (exact >= 255)).mean())
    return grey, Window(exact, gain, cut) if 0 < gain < math.inf else None, notes


def _padding(stored: Values, dataset: pydicom.Dataset) -> Mask:
    """Mask of padding: PixelPaddingValue, or the range from it to PixelPaddingRangeLimit."""
    kind = next((kind for kind in ("Float", "DoubleFloat") if f"{kind}PixelData" in dataset), "")
    value = dataset.get(f"{kind}PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, bool)
    ends = np.array([value, dataset.get(f"{kind}PixelPaddingRangeLimit", value)])
    if not kind:  # it may be written unsigned where pixels are signed, or the reverse, with the same bits
        sign = "ui"[dataset.PixelRepresentation]
        ends = ends.astype(np.int64).astype(f"{sign}{max(1, dataset.BitsAllocated // 8)}")
    inside: Mask = (stored >= ends.min()) & (stored <= ends.max())
    return inside | np.isnan(stored) if np.isnan(ends).any() else inside


def _rescaled(stored: Values, dataset: pydicom.Dataset) -> tuple[Values, list[str]]:
    """Convert (H, W) stored values to the unit of the window, such as HU."""
    if "ModalityLUTSequence" in dataset:
        values, _ = _looked_up(stored, dataset, "ModalityLUTSequence", apply_modality_lut)
        return values.astype(np.float64), ["modality LUT"]
    if "RescaleSlope" in dataset or "RescaleIntercept" in dataset:  # pydicom needs both
        dataset.RescaleSlope = dataset.get("RescaleSlope", 1)
        dataset.RescaleIntercept = dataset.get("RescaleIntercept", 0)
    return apply_modality_lut(stored, dataset).astype(np.float64), []


def _windowed(values: Values, seen: Mask, dataset: pydicom.Dataset) -> tuple[Values, float | None, list[str]]:
    """Apply the file's first VOI LUT, or else its first window; without either, stretch from minimum to maximum.

    Returns:
        The greys, (H, W) float64 in [0, 255]; their slope inside of a linear window, which may be infinite, or None
        without one; and notes.
    """
    has_window = "WindowWidth" in dataset and "WindowCenter" in dataset
    values = np.where(seen, values, 0)
    if "VOILUTSequence" in dataset:
        of = _first_of(len(dataset.VOILUTSequence)) + (", not the window" if has_window else "")
        shown, bits = _looked_up(values.round().astype(np.int64), dataset, "VOILUTSequence", apply_voi)
        return _scaled(shown, 2**bits - 1), None, [f"VOI LUT{of}"]
    if not has_window:
        return stretched(values, seen).astype(np.float64), None, ["no window: stretched from min to max"]
    window = pydicom.Dataset()
    window.add(dataset["WindowCenter"])
    window.add(dataset["WindowWidth"])
    window.VOILUTFunction = function = str(dataset.get("VOILUTFunction", "LINEAR")).strip().upper()
    # pydicom takes the output range from these elements.
    window.PhotometricInterpretation, window.BitsStored, window.PixelRepresentation = "MONOCHROME2", 8, 0
    center, width = (float(np.ravel(window[name].value)[0]) for name in ("WindowCenter", "WindowWidth"))
    finite(np.array([center, width]))
    if width < 1 if function == "LINEAR" else width <= 0:
        raise DataError(f"its window {center:g}/{width:g} is too narrow to show anything; correct its WindowWidth")
    by = "" if function == "LINEAR" else f" {function}"
    note = f"window {center:g}/{width:g}{by}{_first_of(window['WindowWidth'].VM)}"
    span = {"LINEAR": width - 1, "LINEAR_EXACT": width}.get(function)
    slope = None if span is None else 255 / span if span else math.inf
    return _scaled(apply_windowing(values, window), 255), slope, [note]


def _first_of(count: int) -> str:
    return f" (first of {count})" if count > 1 else ""


def _looked_up(
    values: Values, dataset: pydicom.Dataset, sequence: str, apply: Callable[[Values, pydicom.Dataset], Values]
) -> tuple[Values, int]:
    """Look integers up in the first table of a sequence by pydicom's `apply`; also return the table's bits.

    pydicom casts indices to the type of the table's entries before it clips them, so that they wrap around. Here they
    are clipped before, and entries have 16 bits, whatever the table says.
    """
    table = dataset[sequence][0]
    entries, first, bits = map(int, table.LUTDescriptor)
    entries = entries % 2**16 or 2**16
    table.LUTDescriptor = [entries % 2**16, first, 16]
    return apply(values.astype(np.int64).clip(first, first + entries - 1), dataset), bits


def _palette(stored: Values, dataset: pydicom.Dataset) -> tuple[Pixels, list[str]]:
    """Look (H, W) indices up in the palette -> (H, W, 3)."""
    descriptors = [list(dataset[f"{color}PaletteColorLookupTableDescriptor"].value) for color in _PALETTES]
    entries, first, bits = descriptors[0]
    entries = entries % 2**16 or 2**16
    if descriptors != [descriptors[0]] * 3:
        raise DataError("the descriptors of its red, green and blue palettes differ")
    if not dataset.file_meta.TransferSyntaxUID.is_little_endian:
        raise DataError("a palette in big-endian order cannot be read; save it as Explicit VR Little Endian")
    for name in (f"{color}PaletteColorLookupTableData" for color in _PALETTES):
        if name in dataset:  # pydicom refuses an odd number of 8-bit entries, and misreads more than 256 of them
            size = "u1" if len(dataset[name].value) <= entries + 1 else "<u2"
            dataset[name].value = np.frombuffer(dataset[name].value, size)[:entries].astype(np.uint16).tobytes()
        elif bits == 8 and entries > 256:
            raise DataError(f"a segmented palette of {entries} 8-bit entries cannot be read")
    table = apply_color_lut(np.arange(first, first + entries), dataset)
    shown = table[(stored.astype(np.int64) - first).clip(0, entries - 1)]
    return _levels(shown, 255 if bits == 8 and table.max() <= 255 else 65535), ["palette"]


def _colour(values: Values, dataset: pydicom.Dataset) -> tuple[Pixels, list[str]]:
    """Scale (H, W, 3) colours to 8 bits; refuse those that pydicom does not convert to RGB."""
    kind, bits, syntax = dataset.PhotometricInterpretation, dataset.BitsStored, dataset.file_meta.TransferSyntaxUID
    converted = kind == "RGB" or (bits == 8 and (syntax.is_encapsulated or kind not in ("YBR_RCT", "YBR_ICT")))
    if kind not in _COLOURS or values.shape[2] != 3 or dataset.PixelRepresentation or not converted:
        raise DataError(f"{bits}-bit colours of the kind {kind} cannot be read; save it as RGB")
    if values.max() >= 2**bits:
        raise DataError(f"its values go up to {values.max()}, which BitsStored {bits} cannot hold")
    return _levels(values, 2**bits - 1), [] if bits == 8 else [f"{bits}-bit colour scaled to 8 bits"]


def _levels(values: Values, white: int) -> Pixels:
    """Map values from 0 to `white` to grey levels from 0 to 255."""
    return _scaled(values, white).round().astype(np.uint8)


def _scaled(values: Values, white: int) -> Values:
    """Map values from 0 to `white` to float64 from 0 to 255, and cut off what lies beyond."""
    scaled: Values = (values.astype(np.float64) / white * 255).clip(0, 255)
    return scaled
