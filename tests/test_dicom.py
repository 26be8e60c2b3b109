"""DICOM files of every kind, against what SimpleITK decodes and the standard's own formulas."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
import SimpleITK
from bad.images import dicom
from PIL import Image
from pydicom import Dataset, dcmread, dcmwrite
from pydicom.encaps import encapsulate
from pydicom.pixels import pixel_array
from pydicom.uid import (
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from safemed_eval.data.images import stored as _stored
from safemed_eval.data.images.files import decode
from safemed_eval.errors import DataError

SIDE = 12
PAD = 4
"""Rows at the top that padding fills."""
STORAGES = [
    *[(8, 8, 0), (8, 8, 1), (8, 6, 0), (16, 10, 0), (16, 12, 0), (16, 12, 1), (16, 16, 0), (16, 16, 1), (32, 32, 0)],
    *[(32, 32, 1), (16, 8, 1), (32, 24, 0)],
]
"""Bits allocated, bits stored, signed."""
NOT_OF_ITK = [(8, 6), (32, 24)]
"""Which it refuses, or misreads: there the numbers that were written are the truth."""
VIEWS: list[dict[str, Any]] = [
    {},
    {"WindowCenter": 40, "WindowWidth": 400},
    {"WindowCenter": 40, "WindowWidth": 1},
    {"WindowCenter": [7.5, 1000], "WindowWidth": [33.25, 9]},
    {"WindowCenter": 40, "WindowWidth": 0.5, "VOILUTFunction": "LINEAR_EXACT"},
    {"WindowCenter": 40, "WindowWidth": 90, "VOILUTFunction": "LINEAR_EXACT"},
    {"WindowCenter": -20, "WindowWidth": 60, "VOILUTFunction": "SIGMOID"},
]
SCALES: list[dict[str, Any]] = [
    {},
    {"RescaleSlope": 2.5, "RescaleIntercept": -1024},
    {"RescaleSlope": -1, "RescaleIntercept": 3},
]


def words(allocated: int, stored: int, signed: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """(SIDE, SIDE) values of a smooth slope around zero and some extreme ones, and the words that hold them."""
    low = -(2 ** (stored - 1)) if signed else 0
    high = low + 2**stored - 1
    rng = np.random.default_rng(seed)
    values = rng.integers(max(low, -300), min(high, 700), (SIDE, SIDE), endpoint=True)
    values[PAD, :2] = low, high
    return values, values.astype(f"{'ui'[signed]}{allocated // 8}")


def file(tmp_path: Path, grid: np.ndarray, name: str = "x.dcm", **attributes: Any) -> Path:
    (tmp_path / name).write_bytes(dicom(grid, **attributes))
    return tmp_path / name


def group(**attributes: Any) -> Dataset:
    made = Dataset()
    for name, value in attributes.items():
        setattr(made, name, value)
    return made


def itk(path: Path) -> np.ndarray:
    """Read with SimpleITK: greys after their rescale slope, colours as RGB."""
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


def viewed(values: np.ndarray, view: dict[str, Any], seen: np.ndarray, inverted: bool) -> np.ndarray:
    """Grey levels as PS3.3 C.11.2.1.2 and C.11.2.1.3 define them, not rounded."""
    values = values.astype(float)
    if not view:
        inside = values[seen]
        shown = (values - inside.min()) / (inside.max() - inside.min()) * 255
    else:
        c, w = (float(np.ravel(view[name])[0]) for name in ("WindowCenter", "WindowWidth"))
        function = view.get("VOILUTFunction", "LINEAR")
        if function == "SIGMOID":
            shown = 255 / (1 + np.exp(np.minimum(-4 * (values - c) / w, 700)))
        elif function == "LINEAR_EXACT":
            shown = ((values - c) / w + 0.5) * 255
        elif w == 1:
            shown = np.where(values <= c - 0.5, 0, 255)
        else:
            shown = ((values - (c - 0.5)) / (w - 1) + 0.5) * 255
    shown = np.clip(shown, 0, 255)
    return np.where(seen, 255 - shown if inverted else shown, 0)


@pytest.mark.parametrize(("allocated", "stored", "signed"), STORAGES)
def test_greys_of_every_storage_under_every_slope_window_and_padding(
    tmp_path: Path, allocated: int, stored: int, signed: int
) -> None:
    values, whole = words(allocated, stored, signed)
    pad = int(values[PAD, 2])
    store = {"BitsStored": stored, "HighBit": stored - 1, "PixelRepresentation": signed}
    for scale, padded in zip(SCALES, (False, True, False), strict=True):
        grid = whole.copy()
        grid[:PAD] = pad if padded else grid[PAD]
        seen = grid != grid.dtype.type(pad) if padded else np.ones(grid.shape, bool)
        common = {**store, **scale, **({"PixelPaddingValue": pad} if padded else {})}
        if (allocated, stored) in NOT_OF_ITK:
            decoded = grid.astype(float) * scale.get("RescaleSlope", 1) + scale.get("RescaleIntercept", 0)
        else:
            decoded = itk(file(tmp_path, grid, **common))[0]
        for number, view in enumerate(VIEWS):
            kind = f"MONOCHROME{1 + (number + padded) % 2}"
            found = decode(file(tmp_path, grid, **common, **view, PhotometricInterpretation=kind))
            truth = viewed(decoded, view, seen, kind == "MONOCHROME1")
            assert np.abs(found.pixels - truth[..., None]).max() < 0.51, (scale, view, padded, found.notes)
            assert found.notes == (
                "DICOM",
                said(view),
                *(["MONOCHROME1 inverted"] if kind == "MONOCHROME1" else []),
                *(["padding left out"] if padded else []),
            )


def said(view: dict[str, Any]) -> str:
    if not view:
        return "no window: stretched from min to max"
    center, width = (np.ravel(view[name]) for name in ("WindowCenter", "WindowWidth"))
    function = f" {view['VOILUTFunction']}" if "VOILUTFunction" in view else ""
    return f"window {center[0]:g}/{width[0]:g}{function}" + (f" (first of {len(width)})" if len(width) > 1 else "")


@pytest.mark.parametrize("view", VIEWS[1:], ids=said)
@pytest.mark.parametrize("place", ["shared", "frame"])
def test_functional_groups_are_shown_as_the_same_tags_at_the_root(
    tmp_path: Path, view: dict[str, Any], place: str
) -> None:
    """Attributes of a frame take precedence over shared ones, and those over the root's."""
    _, grid = words(16, 12, 1)
    store = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": 1, "NumberOfFrames": 1}
    right = group(
        FrameVOILUTSequence=[group(**view)],
        PixelValueTransformationSequence=[group(**SCALES[1], RescaleType="HU")],
    )
    wrong = group(
        FrameVOILUTSequence=[group(WindowCenter=1, WindowWidth=2)],
        PixelValueTransformationSequence=[group(RescaleSlope=9, RescaleIntercept=9)],
    )
    classic = decode(file(tmp_path, grid, **store, **SCALES[1], **view))
    groups = {"SharedFunctionalGroupsSequence": [right if place == "shared" else wrong]}
    if place == "frame":
        groups["PerFrameFunctionalGroupsSequence"] = [right]
    enhanced = decode(
        file(
            tmp_path,
            grid,
            "e.dcm",
            **store,
            **groups,
            WindowCenter=5,
            WindowWidth=6,
            RescaleSlope=7,
            RescaleIntercept=0,
        )
    )
    assert np.array_equal(enhanced.pixels, classic.pixels) and enhanced.notes == classic.notes


@pytest.mark.parametrize("place", ["SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"])
def test_of_several_windows_of_a_functional_group_the_first_is_shown(tmp_path: Path, place: str) -> None:
    """As of several values of WindowCenter; a sequence of shared groups has one item, and another is not of a frame."""
    _, grid = words(16, 16, 0)
    windows = [{"WindowCenter": 300, "WindowWidth": 200}, {"WindowCenter": 9, "WindowWidth": 9}]
    other = [group(WindowCenter=70, WindowWidth=70)]
    groups = [group(FrameVOILUTSequence=[group(**one) for one in windows]), group(FrameVOILUTSequence=other)]
    shown = decode(file(tmp_path, grid, NumberOfFrames=1, **{place: groups}))
    classic = decode(file(tmp_path, grid, "c.dcm", **windows[0]))
    assert np.array_equal(shown.pixels, classic.pixels) and shown.notes == classic.notes == ("DICOM", "window 300/200")


def test_each_frame_has_its_own_window_and_slope(tmp_path: Path) -> None:
    grid = np.tile(np.arange(0, 400, 10, dtype=np.uint16)[:, None], (3, 4))  # three frames of the same slope
    each = [
        group(
            FrameVOILUTSequence=[group(WindowCenter=center, WindowWidth=101)],
            PixelValueTransformationSequence=[group(RescaleSlope=1, RescaleIntercept=-center)],
            FrameContentSequence=[group(FrameComments="Doe^Jane")],
        )
        for center in (100, 0, 200)
    ]
    path = file(tmp_path, grid, Rows=40, NumberOfFrames=3, PerFrameFunctionalGroupsSequence=each)
    for frame, center in ((1, 100), (2, 0), (3, 200), (None, 0)):
        picture = decode(path, frame)
        truth = viewed(np.arange(0, 400, 10) - center, {"WindowCenter": center, "WindowWidth": 101}, np.True_, False)
        assert np.abs(picture.pixels[:, 0, 0] - truth).max() < 0.51
        which = f"frame {frame} of 3" if frame else "frame 2 of 3 (the middle one)"
        assert picture.notes == ("DICOM", which, f"window {center}/101")
    short = file(tmp_path, grid, "s.dcm", Rows=40, NumberOfFrames=3, PerFrameFunctionalGroupsSequence=each[:2])
    with pytest.raises(DataError, match="describes 2 frames, and not frame 3"):
        decode(short, 3)


def test_of_functional_groups_only_what_pixels_need_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No name, date or text that is nested in a sequence stays, nor does an error or a note hold one."""
    person = group(PatientName="Doe^Jane", StudyDate="20200101", FrameComments="Doe^Jane came")
    window = group(WindowCenter=200, WindowWidth=0, PatientName="Doe^Jane", WindowCenterWidthExplanation="Doe^Jane")
    groups = [group(FrameVOILUTSequence=[window], ReferencedImageSequence=[person], FrameContentSequence=[person])]
    kept: list[Dataset] = []
    monkeypatch.setattr(
        _stored, "pixel_array", lambda dataset, **more: kept.append(dataset) or pixel_array(dataset, **more)
    )
    _, grid = words(16, 16, 0)
    path = file(tmp_path, grid, SharedFunctionalGroupsSequence=groups, PerFrameFunctionalGroupsSequence=groups)
    assert b"Doe^Jane" in path.read_bytes()
    with pytest.raises(DataError, match="window 200/0 is too narrow") as error:
        decode(path)
    assert "Doe" not in str(kept[0]) + str(error.value) and "WindowWidth" in kept[0]
    assert not {"SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"} & {e.keyword for e in kept[0]}


@pytest.mark.parametrize("kind", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize(
    ("value", "limit", "signed"), [(-2000, None, 1), (63536, None, 0), (3000, 3999, 0), (-1, -5, 1)]
)
def test_padding_is_black_and_takes_no_part(
    tmp_path: Path, kind: str, value: int, limit: int | None, signed: int
) -> None:
    """As a value, or as a range from either end, and in greys that are inverted, too."""
    grid = np.linspace(100, 1000, 144).round().reshape(12, 12).astype(["uint16", "int16"][signed])
    bare = decode(file(tmp_path, grid[2:], PixelRepresentation=signed, PhotometricInterpretation=kind))
    grid[0] = value
    grid[1] = value if limit is None else limit
    more = {} if limit is None else {"PixelPaddingRangeLimit": limit}
    picture = decode(
        file(
            tmp_path, grid, PixelRepresentation=signed, PixelPaddingValue=value, PhotometricInterpretation=kind, **more
        )
    )
    assert not picture.pixels[:2].any() and np.array_equal(picture.pixels[2:], bare.pixels)
    assert picture.notes == (*bare.notes, "padding left out")


def test_padding_that_is_written_unsigned_has_the_same_bits(tmp_path: Path) -> None:
    """A common fault of signed files: 63536 where -2000 is meant."""
    grid = np.arange(144, dtype=np.int16).reshape(12, 12)
    grid[0] = -2000
    path = file(tmp_path, grid, PixelRepresentation=1, PixelPaddingValue=-2000, syntax=ExplicitVRLittleEndian)
    right = decode(path)
    content = path.read_bytes().replace(b"\x28\0\x20\1SS", b"\x28\0\x20\1US")
    assert content != path.read_bytes()
    path.write_bytes(content)
    assert np.array_equal(decode(path).pixels, right.pixels) and decode(path).notes == right.notes


@pytest.mark.parametrize("padding", [-1.5, np.nan])
@pytest.mark.parametrize("type_of", [np.float32, np.float64])
def test_float_pixels_and_their_padding(tmp_path: Path, type_of: type, padding: float) -> None:
    grid = np.linspace(0, 1, 144).reshape(12, 12).astype(type_of)
    grid[0] = padding
    kind = "Float" if type_of is np.float32 else "DoubleFloat"
    picture = decode(file(tmp_path, grid, **{f"{kind}PixelPaddingValue": padding}))
    inside = grid[1:]
    assert not picture.pixels[0].any()
    assert np.abs(picture.pixels[1:, :, 0] - (inside - inside.min()) / np.ptp(inside) * 255).max() < 0.51


def test_an_image_of_padding_alone_is_black(tmp_path: Path) -> None:
    assert not decode(file(tmp_path, np.full((4, 4), 7, np.uint16), PixelPaddingValue=7)).pixels.any()


@pytest.mark.parametrize("cases", ["MONOCHROME2 INVERSE", "MONOCHROME1 INVERSE", "MONOCHROME2 IDENTITY"])
def test_a_presentation_lut_inverts_once(tmp_path: Path, cases: str) -> None:
    kind, shape = cases.split()
    _, grid = words(16, 12, 0)
    plain = decode(file(tmp_path, grid)).pixels
    found = decode(file(tmp_path, grid, PhotometricInterpretation=kind, PresentationLUTShape=shape))
    assert np.array_equal(found.pixels, plain if shape == "IDENTITY" else 255 - plain)


def lut(first: int, bits: int, data: list[int]) -> Dataset:
    made = Dataset()
    made.add_new("LUTDescriptor", "SS" if first < 0 else "US", [len(data), first, bits])
    made.add_new("LUTExplanation", "LO", "Doe^Jane")
    made.add_new("LUTData", "US", data)
    return made


@pytest.mark.parametrize(
    ("first", "bits", "length"), [(0, 8, 300), (10, 12, 4), (-5, 16, 40), (0, 16, 200), (3, 10, 7)]
)
def test_voi_and_modality_tables(tmp_path: Path, first: int, bits: int, length: int) -> None:
    """A value below the table has its first entry, one above it the last; a window counts only without a table."""
    data = np.random.default_rng(length).integers(0, 2**bits, length).tolist()
    grid = np.arange(-20, 412, 3, dtype=np.int16).reshape(12, 12)
    signed = {"PixelRepresentation": 1}
    entry = np.array(data)[np.clip(grid.astype(int) - first, 0, length - 1)]
    view = {"VOILUTSequence": [lut(first, bits, data), lut(0, 8, [1, 2])], "WindowCenter": 1, "WindowWidth": 9}
    found = decode(file(tmp_path, grid, **signed, **view))
    assert np.abs(found.pixels[..., 0] - entry / (2**bits - 1) * 255).max() < 0.51
    assert found.notes == ("DICOM", "VOI LUT (first of 2), not the window")
    found = decode(file(tmp_path, grid, **signed, ModalityLUTSequence=[lut(first, bits, data)], **VIEWS[1]))
    assert np.abs(found.pixels[..., 0] - viewed(entry, VIEWS[1], np.True_, False)).max() < 0.51
    assert found.notes == ("DICOM", "modality LUT", "window 40/400")


HU = np.arange(0, 2304, 16, dtype=np.uint16).reshape(12, 12)
"""Stored values; less 1024 they are Hounsfield units."""


@pytest.mark.parametrize(("first", "bits"), [(-1000, 12), (-1200, 16)])
@pytest.mark.parametrize("vr", ["SS", "US"])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_voi_table_of_rescaled_values_begins_below_zero(
    tmp_path: Path, syntax: str, vr: str, first: int, bits: int
) -> None:
    """-1000 and 64536 are the same 16 bits. 12 bits less 1024 can be the first only, 16 bits -1200 as well as 64336."""
    table = lut(first, 8, [place // 8 for place in range(1500)])
    table["LUTDescriptor"].VR, table["LUTDescriptor"].value = vr, [1500, first if vr == "SS" else first + 2**16, 8]
    stored = {"BitsStored": bits, "HighBit": bits - 1, "RescaleSlope": 1, "RescaleIntercept": -1024}
    path = file(tmp_path, HU, syntax=syntax, VOILUTSequence=[table], **stored)
    assert np.array_equal(decode(path).pixels[..., 0], (HU.astype(int) - 1024 - first).clip(0, 1499) // 8)


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_voi_table_behind_a_modality_table_begins_above_32767(tmp_path: Path, syntax: str) -> None:
    """Though pixels are signed: their modality table maps them to 40000 and more."""
    grid = np.arange(-72, 72, dtype=np.int16).reshape(12, 12)
    modality = lut(-72, 16, [40000 + 10 * place for place in range(144)])
    voi = lut(0, 8, [place // 6 for place in range(1500)])
    voi.LUTDescriptor = [1500, 40000, 8]
    path = file(
        tmp_path, grid, syntax=syntax, PixelRepresentation=1, ModalityLUTSequence=[modality], VOILUTSequence=[voi]
    )
    assert np.array_equal(decode(path).pixels[..., 0], np.arange(0, 1440, 10).reshape(12, 12) // 6)


def test_a_table_that_nothing_reaches_is_refused(tmp_path: Path) -> None:
    stored = {"BitsStored": 12, "HighBit": 11, "RescaleSlope": 1, "RescaleIntercept": -1024}
    with pytest.raises(
        DataError, match="its VOI LUT maps values from 5000 to 5003, and only values from -1024 to 3071"
    ):
        decode(file(tmp_path, HU, VOILUTSequence=[lut(5000, 8, [1, 2, 3, 4])], **stored))
    with pytest.raises(
        DataError, match="its modality LUT maps values from 4096 to 4099, and only values from 0 to 4095"
    ):
        decode(file(tmp_path, HU, BitsStored=12, HighBit=11, ModalityLUTSequence=[lut(4096, 8, [1, 2, 3, 4])]))


def packed(entries: list[int], vr: str) -> Dataset:
    """A table of 8-bit entries, two to a 16-bit word."""
    made = lut(0, 8, entries)
    data = bytes(entries) + b"\0" * (len(entries) % 2)
    made.add_new("LUTData", vr, data if vr == "OW" else np.frombuffer(data, "<u2").tolist())
    return made


@pytest.mark.parametrize("vr", ["OW", "US"])
@pytest.mark.parametrize("length", [256, 255, 3, 2])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_entries_of_8_bits_may_be_packed(tmp_path: Path, syntax: str, length: int, vr: str) -> None:
    grid, entries = np.arange(256, dtype=np.uint8).reshape(16, 16), [255 - place for place in range(length)]
    truth = np.array(entries)[grid.clip(0, length - 1)]
    shown = decode(file(tmp_path, grid, syntax=syntax, VOILUTSequence=[packed(entries, vr)]))
    assert np.array_equal(shown.pixels[..., 0], truth)
    window = {"WindowCenter": 128, "WindowWidth": 256}
    shown = decode(file(tmp_path, grid, syntax=syntax, ModalityLUTSequence=[packed(entries, vr)], **window))
    assert np.array_equal(shown.pixels[..., 0], truth)


@pytest.mark.filterwarnings("ignore:The value for the data element")
def test_a_table_of_65536_entries(tmp_path: Path) -> None:
    """Longer than an element of the type US may be, so that it is written as unknown."""
    grid = np.linspace(0, 65535, 144).round().astype(np.uint16).reshape(12, 12)
    table = group(LUTDescriptor=[0, 0, 16])
    table.add_new("LUTData", "US", [65535 - place for place in range(65536)])
    shown = decode(file(tmp_path, grid, VOILUTSequence=[table]))
    assert np.abs(shown.pixels[..., 0] - (65535 - grid.astype(int)) / 257).max() < 0.51


def without(table: Dataset, name: str) -> Dataset:
    del table[name]
    return table


def test_a_table_that_contradicts_its_descriptor_is_refused(tmp_path: Path) -> None:
    grid, short = np.arange(144, dtype=np.uint8).reshape(12, 12), lut(0, 8, list(range(100)))
    short.LUTDescriptor = [144, 0, 8]
    pair = lut(0, 8, [1, 2])
    pair.LUTDescriptor = [2, 0]
    for name, sequence in (("VOI LUT", "VOILUTSequence"), ("modality LUT", "ModalityLUTSequence")):
        for table, message in (
            (short, f"its {name} should have 144 entries, and its LUTData holds 100; correct the file"),
            (without(lut(0, 8, [1, 2]), "LUTData"), f"its {name} should have 2 entries, and its LUTData holds 0"),
            (without(lut(0, 8, [1, 2]), "LUTDescriptor"), f"LUTDescriptor of its {name} must be three numbers"),
            (pair, f"LUTDescriptor of its {name} must be three numbers"),
            (lut(0, 7, [1, 2]), f"LUTDescriptor of its {name} has 7 bits an entry: only 8 to 16 can be read"),
        ):
            with pytest.raises(DataError, match=message):
                decode(file(tmp_path, grid, **{sequence: [table]}))
    with pytest.raises(
        DataError, match="the entries of its VOI LUT go up to 36751, which the 8 bits of its descriptor"
    ):
        decode(file(tmp_path, grid, VOILUTSequence=[lut(0, 8, [257 * place for place in range(144)])]))


@pytest.mark.parametrize(
    "view",
    [{"WindowWidth": 0}, {"WindowWidth": -5}, {"WindowWidth": 0.5}, {"WindowWidth": 0, "VOILUTFunction": "SIGMOID"}],
)
def test_a_window_without_width_is_refused(tmp_path: Path, view: dict[str, Any]) -> None:
    with pytest.raises(DataError, match=r"window 40/\S+ is too narrow to show anything"):
        decode(file(tmp_path, words(16, 16, 0)[1], WindowCenter=40, **view))


def test_empty_elements_are_as_absent(tmp_path: Path) -> None:
    _, grid = words(16, 16, 0)
    names = ("WindowCenter", "WindowWidth", "VOILUTFunction", "PresentationLUTShape")
    dataset = dcmread(file(tmp_path, grid))
    for name in (*names, "RescaleSlope", "RescaleIntercept", "NumberOfFrames"):
        setattr(dataset, name, None)
    dataset.VOILUTSequence = dataset.SharedFunctionalGroupsSequence = []
    dataset.save_as(tmp_path / "e.dcm")
    plain = decode(tmp_path / "x.dcm")
    assert np.array_equal(decode(tmp_path / "e.dcm").pixels, plain.pixels)


def test_an_intercept_without_a_slope_counts(tmp_path: Path) -> None:
    _, grid = words(16, 16, 0)
    both = decode(file(tmp_path, grid, RescaleSlope=1, RescaleIntercept=-1024, **VIEWS[1]))
    alone = decode(file(tmp_path, grid, RescaleIntercept=-1024, **VIEWS[1]))
    assert np.array_equal(alone.pixels, both.pixels)


def test_bits_above_those_stored_are_no_pixels(tmp_path: Path) -> None:
    """Old files keep overlays there."""
    _, grid = words(16, 12, 0)
    clean = decode(file(tmp_path, grid, BitsStored=12, HighBit=11))
    assert np.array_equal(decode(file(tmp_path, grid | 0x9000, BitsStored=12, HighBit=11)).pixels, clean.pixels)
    with pytest.raises(DataError, match="HighBit 15 with BitsStored 12"):
        decode(file(tmp_path, grid << 4, BitsStored=12, HighBit=15))


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGLSLossless])
def test_bits_above_those_stored_are_no_pixels_of_a_compressed_file(tmp_path: Path, syntax: str, signed: int) -> None:
    """Nor is their padding, which may use these bits, lost."""
    values, _ = (np.tile(one, (3, 3)) for one in words(16, 12, signed))
    store = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": signed}
    clean = decode(file(tmp_path, values.astype(np.uint16), **store, **VIEWS[5]))
    grid = (values & 0xFFF).astype(np.uint16)
    grid[::2] |= 0x9000  # rows with an overlay
    found = decode(compressed(file(tmp_path, grid, **store, **VIEWS[5]), grid, syntax))
    assert np.array_equal(found.pixels, clean.pixels) and found.notes == clean.notes
    grid[0] = 0x8000
    found = decode(
        compressed(file(tmp_path, grid, **store, **VIEWS[5], PixelPaddingValue=-32768 * signed or 32768), grid, syntax)
    )
    assert not found.pixels[0].any() and np.array_equal(found.pixels[1:], clean.pixels[1:])


def compressed(path: Path, words: np.ndarray, syntax: str) -> Path:
    """The file with these whole 16-bit words as its pixels."""
    encode: dict[str, Any] = {
        RLELossless: run_lengths,
        JPEGLSLossless: imagecodecs.jpegls_encode,
        JPEGLSNearLossless: imagecodecs.jpegls_encode,
        JPEG2000Lossless: lambda grid: imagecodecs.jpeg2k_encode(grid, level=0, reversible=True, codecformat="J2K"),
    }
    dataset = dcmread(path)
    dataset.PixelData = encapsulate([bytes(encode[syntax](words))])
    dataset["PixelData"].VR, dataset.file_meta.TransferSyntaxUID = "OB", syntax
    dataset.save_as(path)
    return path


def run_lengths(words: np.ndarray) -> bytes:
    """Two segments, of the high and of the low bytes, in which each row is copied (PS3.5 G)."""
    high, low = (
        b"".join(bytes([len(row) - 1]) + row.tobytes() for row in part.astype(np.uint8))
        for part in (words >> 8, words & 255)
    )
    high += b"\0" * (len(high) % 2)
    return np.array([2, 64, 64 + len(high), *[0] * 13], "<u4").tobytes() + high + low


def test_values_of_a_lossy_file_beyond_those_stored_are_refused(tmp_path: Path) -> None:
    grid = np.full((16, 16), 0x9123, np.uint16)
    path = file(tmp_path, grid, BitsStored=12, HighBit=11)
    with pytest.raises(DataError, match="its values go from 37155 to 37155, which BitsStored 12 cannot hold"):
        decode(compressed(path, grid, JPEGLSNearLossless))


@pytest.mark.parametrize(("padding", "signed"), [(63536, 0), (-32768, 1), (63536, 1), (0x830, 1)])
@pytest.mark.parametrize("view", [{}, {"WindowCenter": 700, "WindowWidth": 2000}])
def test_padding_beyond_the_bits_that_are_stored(
    tmp_path: Path, view: dict[str, Any], padding: int, signed: int
) -> None:
    """It is not the pixel that has the same 12 bits: 63536 is no 2096. Signed, 0x830 and 63536 are both -2000."""
    grid = np.linspace(-900 * signed, 2096 - 300 * signed, 144).round().astype(np.int32).reshape(12, 12)
    store = {"BitsStored": 12, "HighBit": 11, "PixelRepresentation": signed, **view}
    bare = decode(file(tmp_path, grid[1:].astype(np.uint16), **store))
    grid[0] = padding
    path = file(tmp_path, grid.astype(np.uint16), **store, PixelPaddingValue=1)
    dataset = dcmread(path)
    dataset.add_new("PixelPaddingValue", "SS" if padding < 0 else "US", padding)
    dataset.save_as(path)
    found = decode(path)
    assert not found.pixels[0].any() and np.array_equal(found.pixels[1:], bare.pixels)
    assert found.notes == (*bare.notes, "padding left out")


@pytest.mark.parametrize(("rows", "columns"), [(5, 7), (3, 5), (1, 1), (8, 8)])
def test_frames_of_one_bit_follow_each_other_without_a_gap(tmp_path: Path, rows: int, columns: int) -> None:
    bits = np.random.default_rng(rows).integers(0, 2, (5, rows, columns), dtype=np.uint8)
    bits[:, 0, :2] = [0, 1][:columns]
    data = np.packbits(bits.ravel(), bitorder="little").tobytes()
    one = {"BitsAllocated": 1, "BitsStored": 1, "HighBit": 0, "Rows": rows, "Columns": columns, "NumberOfFrames": 5}
    path = file(tmp_path, bits[0], **one, PixelData=data + b"\0" * (len(data) % 2))
    for frame in range(5):
        shown = decode(path, frame + 1).pixels[..., 0]
        assert np.array_equal(shown, bits[frame] * 255 if rows > 1 else shown * 0)
    path = file(tmp_path, bits[0], **one, PixelData=data[: len(data) // 2])
    with pytest.raises(DataError, match=r"its PixelData (has \d+ bytes, and its pixels need \d+|is missing or empty)"):
        decode(path, 1)


@pytest.mark.parametrize(
    "name",
    [
        "Rows",
        "Columns",
        "SamplesPerPixel",
        "PhotometricInterpretation",
        "BitsAllocated",
        "BitsStored",
        "PixelRepresentation",
    ],
)
def test_a_missing_element_is_named(tmp_path: Path, name: str) -> None:
    dataset = dcmread(file(tmp_path, words(16, 16, 0)[1]))
    del dataset[name]
    dataset.save_as(tmp_path / "x.dcm")
    with pytest.raises(DataError, match=f"it has no {name}, which its pixels need; correct the file"):
        decode(tmp_path / "x.dcm")


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize("name", ["WindowCenter", "WindowWidth", "RescaleSlope", "RescaleIntercept", "NumberOfFrames"])
@pytest.mark.parametrize("text", ["20,5", "none", "1 2"])
def test_a_malformed_number_is_named(tmp_path: Path, name: str, text: str) -> None:
    given = {"WindowCenter": 40, "WindowWidth": 400, "RescaleSlope": 1, "RescaleIntercept": 0} | {name: 7654}
    path = file(tmp_path, words(16, 16, 0)[1], **given)
    path.write_bytes(path.read_bytes().replace(b"7654", text.encode().ljust(4)))
    with pytest.raises(DataError, match=f"its {name} is {text}.*, which is not a number; correct it"):
        decode(path)


@pytest.mark.parametrize("name", ["RescaleSlope", "NumberOfFrames", "PixelPaddingValue", "BitsStored"])
def test_a_number_with_several_values_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(DataError, match=f"its {name} has 2 values, and should have one; correct it"):
        decode(file(tmp_path, words(16, 16, 0)[1], **{name: [1, 2]}))


# -------------------------------------------------------------------- colours

RGB = np.random.default_rng(1).integers(0, 256, (10, 12, 3), dtype=np.uint8)
SMOOTH = np.stack([np.add.outer(np.arange(40), np.arange(40)) * k for k in (1, 2, 3)], 2).astype(np.uint8)


@pytest.mark.parametrize(
    ("kind", "planar"), [("RGB", 0), ("RGB", 1), ("YBR_FULL", 0), ("YBR_FULL", 1), ("YBR_FULL_422", 0)]
)
def test_colours_are_those_of_an_independent_decoder(tmp_path: Path, kind: str, planar: int) -> None:
    grid = RGB if kind != "YBR_FULL_422" else RGB[:, :8]
    raw = np.moveaxis(grid, 2, 0) if planar else grid
    if kind == "YBR_FULL_422":
        pairs = grid.reshape(-1, 2, 3)
        raw = np.concatenate([pairs[:, :, 0], pairs[:, 0, 1:]], axis=1)
    path = file(tmp_path, grid, PhotometricInterpretation=kind, PlanarConfiguration=planar, PixelData=raw.tobytes())
    found = decode(path)
    assert found.notes == ("DICOM",)
    truth = grid if kind == "RGB" else itk(path)[0] if kind == "YBR_FULL" else None
    if truth is None:
        full = grid.copy()
        full[:, 1::2, 1:] = grid[:, ::2, 1:]
        truth = decode(
            file(tmp_path, full, "f.dcm", PhotometricInterpretation="YBR_FULL", PlanarConfiguration=0)
        ).pixels
    assert np.abs(found.pixels.astype(int) - truth).max() <= (0 if kind == "RGB" else 1)


@pytest.mark.parametrize("bits", [8, 12, 16])
def test_deep_colours_are_scaled_by_the_bits_that_are_stored(tmp_path: Path, bits: int) -> None:
    grid = np.random.default_rng(2).integers(0, 2**bits, (6, 7, 3)).astype(np.uint8 if bits == 8 else np.uint16)
    path = file(
        tmp_path, grid, PhotometricInterpretation="RGB", PlanarConfiguration=0, BitsStored=bits, HighBit=bits - 1
    )
    found = decode(path)
    assert np.abs(found.pixels - itk(path)[0] / (2**bits - 1) * 255).max() < 0.51
    assert found.notes == (("DICOM",) if bits == 8 else ("DICOM", f"{bits}-bit colour scaled to 8 bits"))


@pytest.mark.parametrize("kind", ["YBR_PARTIAL_420", "YBR_PARTIAL_422", "YBR_RCT", "YBR_ICT", "HSV"])
def test_colours_that_would_be_shown_as_others_are_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(DataError, match=f"{kind} cannot be read; save it as RGB"):
        decode(file(tmp_path, RGB, PhotometricInterpretation=kind, PlanarConfiguration=0))


def test_deep_ybr_is_refused(tmp_path: Path) -> None:
    grid = RGB.astype(np.uint16) * 257
    with pytest.raises(DataError, match="color space conversion, must be"):
        decode(file(tmp_path, grid, PhotometricInterpretation="YBR_FULL", PlanarConfiguration=0))


PALETTES = ("Red", "Green", "Blue")


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("allocated", [8, 16])
@pytest.mark.parametrize(("first", "entries"), [(0, 256), (0, 255), (17, 40), (0, 700)])
def test_palettes(tmp_path: Path, depth: int, allocated: int, first: int, entries: int) -> None:
    rng = np.random.default_rng(entries)
    tables = rng.integers(0, 2**depth, (entries, 3)).astype(f"u{depth // 8}")
    grid = rng.integers(0, min(2**allocated, entries + 30), (9, 9)).astype(f"u{allocated // 8}")
    named: dict[str, Any] = {f"{c}PaletteColorLookupTableDescriptor": [entries, first, depth] for c in PALETTES}
    for place, color in enumerate(PALETTES):
        data = np.ascontiguousarray(tables[:, place]).tobytes()
        named[f"{color}PaletteColorLookupTableData"] = data + b"\0" * (len(data) % 2)
    found = decode(file(tmp_path, grid, PhotometricInterpretation="PALETTE COLOR", **named))
    truth = tables[np.clip(grid.astype(int) - first, 0, entries - 1)] / (2**depth - 1) * 255
    assert np.abs(found.pixels - truth).max() < 0.51 and found.notes == ("DICOM", "palette")


@pytest.mark.parametrize("vr", ["SS", "US"])
@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian])
def test_a_palette_of_signed_indices_begins_below_zero(tmp_path: Path, syntax: str, vr: str) -> None:
    """-72 or 65464 are the same 16 bits."""
    grid, shades = np.arange(-72, 72, dtype=np.int16).reshape(12, 12), np.arange(144) * 400
    dataset = dcmread(
        file(tmp_path, grid, syntax=syntax, PixelRepresentation=1, PhotometricInterpretation="PALETTE COLOR")
    )
    for color in PALETTES:
        name = f"{color}PaletteColorLookupTable"
        dataset.add_new(f"{name}Descriptor", vr, [144, -72 if vr == "SS" else 65464, 16])
        dataset.add_new(f"{name}Data", "OW", shades.astype("<u2").tobytes())
    dataset.save_as(tmp_path / "p.dcm")
    truth = shades.reshape(12, 12) / 257
    assert np.abs(decode(tmp_path / "p.dcm").pixels - truth[..., None]).max() < 0.51


def test_a_palette_that_contradicts_its_descriptor_is_refused(tmp_path: Path) -> None:
    grid = np.arange(144, dtype=np.uint8).reshape(12, 12)
    for descriptor, entries, message in (
        ([144, 0, 16], np.arange(144, dtype="<u2"), "its palette has 16 bits an entry and no entry above 143"),
        ([144, 0, 8], np.arange(144, dtype="<u2") * 257, "the entries of its palette go up to 36751, which the 8 bits"),
        (
            [144, 0, 16],
            np.arange(100, dtype="<u2") * 257,
            "should have 144 entries, and its RedPalette.*Data holds 100",
        ),
        ([144, 0, 8], np.arange(100, dtype="u1"), "should have 144 entries, and its RedPalette.*Data holds 50"),
        ([144, 500, 16], np.arange(144, dtype="<u2") * 257, "its palette maps values from 500 to 643, and only"),
    ):
        named: dict[str, Any] = {f"{c}PaletteColorLookupTableDescriptor": descriptor for c in PALETTES}
        named |= {f"{c}PaletteColorLookupTableData": entries.tobytes() for c in PALETTES}
        with pytest.raises(DataError, match=message):
            decode(file(tmp_path, grid, PhotometricInterpretation="PALETTE COLOR", **named))
    with pytest.raises(DataError, match="RedPaletteColorLookupTableDescriptor of its palette must be three numbers"):
        decode(file(tmp_path, grid, PhotometricInterpretation="PALETTE COLOR"))
    named = {f"{c}PaletteColorLookupTableDescriptor": [144, 0, 8] for c in PALETTES}
    named |= {f"Segmented{c}PaletteColorLookupTableData": bytes([0, 3, 10, 20, 30, 1, 5, 130]) for c in PALETTES}
    with pytest.raises(DataError, match="its segmented palette cannot be expanded to 144 entries"):
        decode(file(tmp_path, grid, PhotometricInterpretation="PALETTE COLOR", **named))


def test_a_palette_of_8_bits_in_16_is_not_black(tmp_path: Path) -> None:
    grid = np.arange(256, dtype=np.uint8).reshape(16, 16)
    named: dict[str, Any] = {f"{c}PaletteColorLookupTableDescriptor": [256, 0, 8] for c in PALETTES}
    named |= {f"{c}PaletteColorLookupTableData": np.arange(256, dtype="<u2").tobytes() for c in PALETTES}
    found = decode(file(tmp_path, grid, PhotometricInterpretation="PALETTE COLOR", **named))
    assert np.array_equal(found.pixels[..., 1], grid)


def test_a_segmented_palette(tmp_path: Path) -> None:
    """Three entries of 10 20 30, then a line of five up to 130."""
    grid = np.arange(8, dtype=np.uint8).reshape(2, 4)
    named: dict[str, Any] = {f"{c}PaletteColorLookupTableDescriptor": [8, 0, 8] for c in PALETTES}
    named |= {f"Segmented{c}PaletteColorLookupTableData": bytes([0, 3, 10, 20, 30, 1, 5, 130]) for c in PALETTES}
    found = decode(file(tmp_path, grid, PhotometricInterpretation="PALETTE COLOR", **named))
    assert found.pixels[..., 2].ravel().tolist() == [10, 20, 30, 50, 70, 90, 110, 130]


# ---------------------------------------------------------- transfer syntaxes


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, RLELossless, JPEG2000Lossless, JPEGLSLossless]
)
@pytest.mark.parametrize(("allocated", "stored", "signed"), [(8, 8, 0), (16, 12, 0), (16, 16, 1), (16, 12, 1)])
def test_transfer_syntaxes_of_greys_change_nothing(
    tmp_path: Path, syntax: str, allocated: int, stored: int, signed: int
) -> None:
    values, grid = (np.tile(one, (3, 3)) for one in words(allocated, stored, signed))
    store = {"BitsStored": stored, "HighBit": stored - 1, "PixelRepresentation": signed}
    plain = decode(file(tmp_path, grid, **store, **VIEWS[5], **SCALES[1]))
    path = tmp_path / "c.dcm"
    dataset = dcmread(tmp_path / "x.dcm")
    if syntax in (RLELossless, JPEG2000Lossless):
        dataset.compress(syntax, generate_instance_uid=False)
        dataset.save_as(path)
    elif syntax == JPEGLSLossless:
        bare = (values & (2**stored - 1)).astype(grid.dtype.str.replace("i", "u"))  # as 16 bits, whatever is stored
        dataset.PixelData = encapsulate([imagecodecs.jpegls_encode(bare)])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID = syntax
        dataset.save_as(path)
    else:
        if syntax == ExplicitVRBigEndian:
            dataset.PixelData = grid.astype(grid.dtype.newbyteorder(">")).tobytes()
            dataset["PixelData"].VR = "OB" if allocated == 8 else "OW"
        dataset.file_meta.TransferSyntaxUID = syntax
        dcmwrite(
            path, dataset, implicit_vr=syntax == ImplicitVRLittleEndian, little_endian=syntax != ExplicitVRBigEndian
        )
    assert np.array_equal(decode(path).pixels, plain.pixels) and decode(path).notes == plain.notes


@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless, JPEGBaseline8Bit])
def test_compressed_colours(tmp_path: Path, syntax: str) -> None:
    path = file(tmp_path, SMOOTH, PhotometricInterpretation="RGB", PlanarConfiguration=0)
    dataset = dcmread(path)
    if syntax == JPEGBaseline8Bit:
        stream = io.BytesIO()
        Image.fromarray(SMOOTH).save(stream, "JPEG", quality=95, subsampling=0)
        dataset.PixelData = encapsulate([stream.getvalue()])
        dataset["PixelData"].VR = "OB"
        dataset.file_meta.TransferSyntaxUID, dataset.PhotometricInterpretation = syntax, "YBR_FULL_422"
    else:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(tmp_path / "c.dcm")
    found = decode(tmp_path / "c.dcm").pixels.astype(int)
    assert np.abs(found - SMOOTH).max() <= (6 if syntax == JPEGBaseline8Bit else 0)
    truth = itk(tmp_path / "c.dcm").reshape(SMOOTH.shape)
    assert np.abs(found - truth).max() <= (4 if syntax == JPEGBaseline8Bit else 0)
