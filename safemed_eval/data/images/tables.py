"""Lookup tables of DICOM files: modality LUT, VOI LUT and palette.

pydicom would misread tables whose first value is written with the other sign, whose entries are packed two to a word,
or that are shorter than they say; only segmented palettes are expanded by it.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

import numpy as np
from pydicom import Dataset
from pydicom.pixels import apply_color_lut

from safemed_eval.data.images.picture import Values
from safemed_eval.errors import DataError

Range = tuple[float, float]
"""The smallest and the largest number that can come before a table."""

_PALETTES = ("Red", "Green", "Blue")


@dataclass(frozen=True, kw_only=True)
class Table:
    """Maps each number to an entry: one below the table to the first, one above it to the last.

    Args:
        name: what messages call it.
        first: the number that is mapped to the first entry.
        bits: of an entry, as its descriptor says.
        entries: (N,) int64, or (N, 3) of a palette.
    """

    name: str
    first: int
    bits: int
    entries: Values

    def __call__(self, values: Values) -> Values:
        places = np.rint(values.astype(np.float64)) - self.first
        found: Values = self.entries[places.clip(0, len(self.entries) - 1).astype(np.int64)]
        return found

    def greys(self, values: Values) -> Values:
        """Look numbers up -> float64 in [0, 255], where 255 is the largest entry that the bits can hold."""
        white, most = 2**self.bits - 1, self.entries.max()
        if most > white:
            raise DataError(
                f"the entries of its {self.name} go up to {most}, which the {self.bits} bits of its descriptor cannot "
                "hold; correct the descriptor"
            )
        greys: Values = self(values) / white * 255
        return greys


def lut_of(dataset: Dataset, sequence: str, name: str, reach: Range) -> Table:
    """Read the first table of a sequence."""
    item = dataset[sequence][0]
    count, first, bits = _descriptor(item, "LUTDescriptor", name)
    entries = _entries(item, "LUTData", name, count, bits, little_endian=_little_endian(dataset))
    return Table(name=name, first=_first(first, count, reach, name), bits=bits, entries=entries)


def palette_of(dataset: Dataset, reach: Range) -> Table:
    """Read the red, green and blue palette as one table."""
    descriptors = [_descriptor(dataset, f"{color}PaletteColorLookupTableDescriptor", "palette") for color in _PALETTES]
    if len(set(descriptors)) > 1:
        raise DataError("the descriptors of its red, green and blue palettes differ")
    if not _little_endian(dataset):
        raise DataError("a palette in big-endian order cannot be read; save it as Explicit VR Little Endian")
    count, first, bits = descriptors[0]
    if f"Segmented{_PALETTES[0]}PaletteColorLookupTableData" in dataset:
        entries = _expanded(dataset, count, bits)
    else:
        names = (f"{color}PaletteColorLookupTableData" for color in _PALETTES)
        entries = np.stack([_entries(dataset, name, "palette", count, bits, little_endian=True) for name in names], 1)
    if bits == 16 and entries.max() <= 255:
        raise DataError(
            f"its palette has 16 bits an entry and no entry above {entries.max()}, so that all is nearly black; "
            "if 8 bits are meant, correct its descriptors"
        )
    return Table(name="palette", first=_first(first, count, reach, "palette"), bits=bits, entries=entries)


def _little_endian(dataset: Dataset) -> bool:
    return bool(dataset.file_meta.TransferSyntaxUID.is_little_endian)


def _descriptor(item: Dataset, field: str, name: str) -> tuple[int, int, int]:
    """Number of entries, the first value as it is written, and the bits of an entry."""
    value = item.get(field)
    try:
        count, first, bits = map(int, value)
    except (TypeError, ValueError):
        raise DataError(f"the {field} of its {name} must be three numbers, and is {value}; correct it") from None
    if not 8 <= bits <= 16:
        raise DataError(f"the {field} of its {name} has {bits} bits an entry: only 8 to 16 can be read")
    return count % 2**16 or 2**16, first, bits


def _first(first: int, count: int, reach: Range, name: str) -> int:
    """The first value that a table maps, with the sign with which it reaches numbers that can come.

    Its 16 bits are signed where numbers before the table may be negative, whatever type the file gives them.

    Source:
        PS3.3 C.11.1.1, C.11.2.1.1 and C.7.6.3.1.5.
    """
    low, high = reach
    unsigned = first % 2**16
    readings = [unsigned, unsigned - 2**16] if unsigned >= 2**15 else [unsigned]
    if first < 0 or low < 0:
        readings.reverse()
    for reading in readings:
        if reading <= high and low <= reading + count - 1:
            return reading
    raise DataError(
        f"its {name} maps values from {readings[0]} to {readings[0] + count - 1}, and only values from {low:g} to "
        f"{high:g} can come; correct the first value of its descriptor"
    )


def _entries(item: Dataset, field: str, name: str, count: int, bits: int, *, little_endian: bool) -> Values:
    """Entries of a table, (N,): a 16-bit word each, or of 8 bits two to a word, the first in the low byte.

    Source:
        PS3.3 C.11.1.1.1, C.7.6.3.1.6; PS3.5 8.1.1.
    """
    value = item.get(field)
    if isinstance(value, bytes):
        words = np.frombuffer(value + b"\0" * (len(value) % 2), "<u2" if little_endian else ">u2")
    else:
        words = np.ravel([] if value is None else value).astype(np.int64) % 2**16
    packed = bits == 8 and count > 1 and 2 * len(words) == count + count % 2
    entries = words.astype("<u2").view(np.uint8) if packed else words
    if len(entries) < count:
        raise DataError(
            f"its {name} should have {count} entries, and its {field} holds {len(entries)}; correct the file"
        )
    return entries[:count].astype(np.int64)


def _expanded(dataset: Dataset, count: int, bits: int) -> Values:
    """Expand a segmented palette -> (N, 3)."""
    if bits == 8 and count > 256:
        raise DataError(f"a segmented palette of {count} 8-bit entries cannot be read")
    dataset.RedPaletteColorLookupTableDescriptor = [count % 2**16, 0, bits]
    try:
        expanded: Values = apply_color_lut(np.arange(count), dataset).astype(np.int64)
    except (AttributeError, IndexError, TypeError, ValueError, struct.error):
        raise DataError(f"its segmented palette cannot be expanded to {count} entries; correct the file") from None
    return expanded
