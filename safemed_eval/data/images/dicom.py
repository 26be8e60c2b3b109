"""Decodes DICOM files as viewers show them: rescaled, windowed, inverted where the file says so, padding black.

pydicom decodes, rescales and windows. This module chooses the frame, gathers the elements that describe it, and refuses
files that pydicom would show differently from what they mean.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pydicom
from pydicom.pixels import apply_modality_lut, apply_windowing

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
from safemed_eval.data.images.stored import SINGLE_NUMBERS, limits, refuse_incomplete, refuse_malformed, stored_values
from safemed_eval.data.images.tables import Range, lut_of, palette_of
from safemed_eval.errors import DataError

_GROUPS = ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence")
_MACROS = {
    "FrameVOILUTSequence": ("WindowCenter", "WindowWidth", "VOILUTFunction", "VOILUTSequence"),
    "PixelValueTransformationSequence": ("RescaleSlope", "RescaleIntercept"),
}
"""The parts of an enhanced file's functional groups that are read, and the elements of each."""

_PALETTES = ("Red", "Green", "Blue")

DICOM_TAGS = (
    *SINGLE_NUMBERS,
    *("PhotometricInterpretation", "ModalityLUTSequence"),
    *("PixelData", "FloatPixelData", "DoubleFloatPixelData", "ExtendedOffsetTable", "ExtendedOffsetTableLengths"),
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
    refuse_incomplete(dataset)
    refuse_malformed(dataset)
    refuse_bomb(dataset.Rows, dataset.Columns)
    index, said = chosen(frame, int(dataset.get("NumberOfFrames") or 1))
    _gather(dataset, index)
    refuse_malformed(dataset)
    stored, padding = stored_values(dataset, index)
    kind, window = dataset.PhotometricInterpretation, None
    if kind == "PALETTE COLOR":
        shown, how = palette_of(dataset, limits(dataset, stored)).greys(stored).round().astype(np.uint8), ["palette"]
    elif stored.ndim == 3:
        shown, how = _colour(stored, dataset)
    elif kind in ("MONOCHROME1", "MONOCHROME2"):
        grey, window, how = _grey(stored, ~padding, dataset)
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


def _grey(stored: Values, seen: Mask, dataset: pydicom.Dataset) -> tuple[Pixels, Window | None, list[str]]:
    """Convert (H, W) stored values to grey levels, with notes, and with their window where it is a straight line."""
    finite(stored[seen])
    with np.errstate(all="ignore"):  # overflow gives infinity, which is refused
        values, reach, notes = _rescaled(np.where(seen, stored, 0), dataset)
        finite(values[seen])
        exact, slope, how = _windowed(values, reach, seen, dataset)
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


def _rescaled(stored: Values, dataset: pydicom.Dataset) -> tuple[Values, Range, list[str]]:
    """Convert (H, W) stored values to the unit of the window, such as HU; also return their range, and notes."""
    reach = limits(dataset, stored)
    if "ModalityLUTSequence" in dataset:
        table = lut_of(dataset, "ModalityLUTSequence", "modality LUT", reach)
        return table(stored).astype(np.float64), (table.entries.min(), table.entries.max()), ["modality LUT"]
    if "RescaleSlope" in dataset or "RescaleIntercept" in dataset:  # pydicom needs both
        dataset.RescaleSlope = dataset.get("RescaleSlope", 1)
        dataset.RescaleIntercept = dataset.get("RescaleIntercept", 0)
    low, high = sorted(apply_modality_lut(np.array(reach, np.float64), dataset).tolist())
    return apply_modality_lut(stored, dataset).astype(np.float64), (low, high), []


def _windowed(
    values: Values, reach: Range, seen: Mask, dataset: pydicom.Dataset
) -> tuple[Values, float | None, list[str]]:
    """Apply the file's first VOI LUT, or else its first window; without either, stretch from minimum to maximum.

    Args:
        reach: the least and the greatest number that the file's values can be.
    Returns:
        The greys, (H, W) float64 in [0, 255]; their slope inside of a linear window, which may be infinite, or None
        without one; and notes.
    """
    has_window = "WindowWidth" in dataset and "WindowCenter" in dataset
    if "VOILUTSequence" in dataset:
        of = _first_of(len(dataset.VOILUTSequence)) + (", not the window" if has_window else "")
        table = lut_of(dataset, "VOILUTSequence", "VOI LUT", reach)
        return table.greys(values), None, [f"VOI LUT{of}"]
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


def _colour(values: Values, dataset: pydicom.Dataset) -> tuple[Pixels, list[str]]:
    """Scale (H, W, 3) colours to 8 bits; refuse those that pydicom does not convert to RGB."""
    kind, bits, syntax = dataset.PhotometricInterpretation, dataset.BitsStored, dataset.file_meta.TransferSyntaxUID
    converted = kind == "RGB" or (bits == 8 and (syntax.is_encapsulated or kind not in ("YBR_RCT", "YBR_ICT")))
    if kind not in _COLOURS or values.shape[2] != 3 or dataset.PixelRepresentation or not converted:
        raise DataError(f"{bits}-bit colours of the kind {kind} cannot be read; save it as RGB")
    shown = _scaled(values, 2**bits - 1).round().astype(np.uint8)
    return shown, [] if bits == 8 else [f"{bits}-bit colour scaled to 8 bits"]


def _scaled(values: Values, white: int) -> Values:
    """Map values from 0 to `white` to float64 from 0 to 255, and cut off what lies beyond."""
    scaled: Values = (values.astype(np.float64) / white * 255).clip(0, 255)
    return scaled
