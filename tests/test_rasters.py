"""TIFF and PNG of every depth and layout, against tifffile, SimpleITK and the numbers that were written."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import PIL
import pytest
import SimpleITK
import tifffile
from bad.images import chunk
from packaging.version import Version
from PIL import Image

from safemed_eval.data.images.files import decode
from safemed_eval.errors import DataError

HIGH, WIDE = 6, 7
Values = np.ndarray[Any, Any]


def rng() -> np.random.Generator:
    return np.random.default_rng(5)


def rgb(grey: Values) -> Values:
    return np.repeat(np.asarray(grey)[..., None], 3, axis=2)


def stretched(values: Values) -> Values:
    values = values.astype(float)
    return (values - values.min()) / (values.max() - values.min()) * 255


def far(path: Path, truth: Values) -> float:
    """The largest difference of a decoded file from numbers that are not rounded."""
    return float(np.abs(decode(path).pixels - truth).max())


# ----------------------------------------------------------------------- TIFF

UNREADABLE = [(">", "u2", True), (">", "u4", False)]
"""Byte order, type and whether 0 is white, beside the types below: Pillow has no name for it."""


@pytest.mark.parametrize("white", [False, True], ids=["MinIsBlack", "MinIsWhite"])
@pytest.mark.parametrize("kind", ["u1", "i1", "u2", "i2", "u4", "i4", "f2", "f4", "f8", "i8", "u8"])
@pytest.mark.parametrize("order", ["<", ">"])
def test_greys_of_a_tiff(tmp_path: Path, order: str, kind: str, white: bool) -> None:
    """Files that Pillow cannot read are refused with one line."""
    path, type_of = tmp_path / "x.tif", np.dtype(kind)
    limits = np.finfo(np.float16) if type_of.kind == "f" else np.iinfo(type_of)
    values = np.linspace(float(limits.min) * 0.999, float(limits.max) * 0.999, HIGH * WIDE).reshape(HIGH, WIDE)
    photometric = "miniswhite" if white else "minisblack"
    tifffile.imwrite(path, values.astype(type_of.newbyteorder(order)), byteorder=order, photometric=photometric)
    unread = kind in ("f2", "f8", "i8", "u8") or (white and kind in ("i1", "i2", "u4", "i4"))
    if unread or (order, kind, white) in UNREADABLE or (order, kind) == (">", "u4"):
        with pytest.raises(DataError, match="a TIFF that is broken, or of a depth or layout that cannot be read"):
            decode(path)
        return
    read = tifffile.imread(path)
    truth = read.astype(float) if kind == "u1" else stretched(read)
    assert far(path, rgb(255 - truth if white else truth)) < 0.51
    notes = () if kind == "u1" else ("deep greys stretched to 8 bits", *(["MinIsWhite inverted"] if white else []))
    assert decode(path).notes == notes


@pytest.mark.parametrize("white", [False, True], ids=["MinIsBlack", "MinIsWhite"])
def test_one_bit_of_a_tiff(tmp_path: Path, white: bool) -> None:
    bits = rng().integers(0, 2, (HIGH, WIDE)).astype(bool)
    tifffile.imwrite(tmp_path / "x.tif", bits, photometric="miniswhite" if white else "minisblack")
    assert far(tmp_path / "x.tif", rgb((tifffile.imread(tmp_path / "x.tif") != white) * 255)) == 0


@pytest.mark.parametrize("alpha", [None, "unspecified", "assocalpha", "unassalpha"])
@pytest.mark.parametrize("planes", ["contig", "separate"])
@pytest.mark.parametrize("kind", ["u1", "u2"])
def test_colours_of_a_tiff(tmp_path: Path, kind: str, planes: str, alpha: str | None) -> None:
    """In either byte order, packed or not. Of 16 bits the high byte is taken, off by one at most, by two with alpha."""
    top = np.iinfo(kind).max
    colours, opacity = rng().integers(0, top + 1, (HIGH, WIDE, 3)), rng().integers(0, top + 1, (HIGH, WIDE))
    opacity[0], opacity[1] = top, 0
    if alpha == "assocalpha":
        colours = colours * opacity[..., None] // top
    samples = colours if alpha is None else np.dstack([colours, opacity])
    truth = colours / top * 255 * (opacity[..., None] / top if alpha == "unassalpha" else 1)
    for order, packed in (("<", None), (">", None), ("<", "lzw"), (">", "deflate")):
        path, extra = tmp_path / "x.tif", {} if alpha is None else {"extrasamples": [alpha]}
        tifffile.imwrite(
            path,
            (samples if planes == "contig" else np.moveaxis(samples, 2, 0)).astype(np.dtype(kind).newbyteorder(order)),
            byteorder=order,
            photometric="rgb",
            planarconfig=planes,
            compression=packed,
            **extra,
        )
        if planes == "separate" and not packed and (kind == "u2" or alpha in ("unspecified", "assocalpha")):
            with pytest.raises(DataError):
                decode(path)
            continue
        assert far(path, truth) <= (1 if alpha is None or kind == "u1" else 2)
        assert ("16-bit colour cut to 8 bits" in decode(path).notes) == (kind == "u2")


@pytest.mark.parametrize("alpha", ["unspecified", "assocalpha", "unassalpha"])
def test_grey_with_alpha_of_a_tiff(tmp_path: Path, alpha: str) -> None:
    grey, opacity = rng().integers(0, 256, (2, HIGH, WIDE))
    opacity[0], opacity[1] = 255, 0
    if alpha == "assocalpha":
        grey = grey * opacity // 255
    samples = np.dstack([grey, opacity]).astype(np.uint8)
    tifffile.imwrite(tmp_path / "x.tif", samples, photometric="minisblack", planarconfig="contig", extrasamples=[alpha])
    if Version(PIL.__version__) < Version("13") and alpha != "unassalpha":
        with pytest.raises(DataError, match="of a depth or layout that cannot be read"):
            decode(tmp_path / "x.tif")
        return
    assert far(tmp_path / "x.tif", rgb(grey * opacity / 255 if alpha == "unassalpha" else grey)) <= 1


def test_a_palette_of_a_tiff(tmp_path: Path) -> None:
    table, places = rng().integers(0, 65536, (3, 256)), rng().integers(0, 256, (HIGH, WIDE))
    tifffile.imwrite(
        tmp_path / "x.tif", places.astype(np.uint8), photometric="palette", colormap=table.astype(np.uint16)
    )
    assert far(tmp_path / "x.tif", np.moveaxis(table[:, places], 0, 2) / 257) < 1


@pytest.mark.parametrize("kind", ["cielab", "icclab", "itulab", "ycbcr"])
def test_other_colours_of_a_tiff_are_refused(tmp_path: Path, kind: str) -> None:
    tifffile.imwrite(tmp_path / "x.tif", rng().integers(0, 256, (HIGH, WIDE, 3)).astype(np.uint8), photometric=kind)
    with pytest.raises(DataError, match=r"a TIFF .* cannot be read"):
        decode(tmp_path / "x.tif")


def test_cmyk_of_a_tiff(tmp_path: Path) -> None:
    ink = rng().integers(0, 256, (HIGH, WIDE, 4))
    tifffile.imwrite(tmp_path / "x.tif", ink.astype(np.uint8), photometric="separated")
    assert far(tmp_path / "x.tif", (255 - ink[..., :3]) * (1 - ink[..., 3:] / 255)) <= 1
    assert decode(tmp_path / "x.tif").notes == ("CMYK converted to RGB",)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("packed", [None, "lzw"])
@pytest.mark.parametrize("kind", [np.uint8, np.uint16])
def test_a_tiff_is_turned_once(tmp_path: Path, orientation: int, packed: str | None, kind: type) -> None:
    grey = np.arange(HIGH * WIDE).reshape(HIGH, WIDE) * 6
    turned = {
        1: grey,
        2: grey[:, ::-1],
        3: grey[::-1, ::-1],
        4: grey[::-1],
        5: grey.T,
        6: np.rot90(grey, -1),
        7: np.rot90(grey, 2).T,
        8: np.rot90(grey),
    }[orientation]
    tag = (274, 3, 1, orientation, True)
    tifffile.imwrite(
        tmp_path / "x.tif", grey.astype(kind), photometric="minisblack", compression=packed, extratags=[tag]
    )
    assert far(tmp_path / "x.tif", rgb(turned if kind is np.uint8 else stretched(turned))) < 0.51
    assert ("EXIF orientation applied" in decode(tmp_path / "x.tif").notes) == (orientation > 1)


# ------------------------------------------------------------------------ PNG


def png(values: Values, depth: int, colour: int, *chunks: bytes) -> bytes:
    """Written bit by bit, without a library."""
    lines = b""
    for line in values.reshape(len(values), -1):
        if depth < 8:
            body = np.packbits(np.unpackbits(line.astype(np.uint8)[:, None], axis=1)[:, 8 - depth :].ravel()).tobytes()
        else:
            body = line.astype(f">u{depth // 8}").tobytes()
        lines += b"\0" + body
    head = struct.pack(">IIBBBBB", values.shape[1], values.shape[0], depth, colour, 0, 0, 0)
    parts = (chunk(b"IHDR", head), *chunks, chunk(b"IDAT", zlib.compress(lines)), chunk(b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def saved(tmp_path: Path, content: bytes) -> Path:
    (tmp_path / "x.png").write_bytes(content)
    return tmp_path / "x.png"


def itk(path: Path) -> Values:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path)))


@pytest.mark.parametrize("depth", [1, 2, 4, 8, 16])
def test_greys_of_a_png(tmp_path: Path, depth: int) -> None:
    """Chunks about gamma, colour space and significant bits change nothing, as in viewers."""
    values = rng().integers(0, 2**depth, (HIGH, WIDE))
    path = saved(tmp_path, png(values, depth, 0))
    assert far(path, rgb(stretched(itk(path)) if depth == 16 else itk(path))) < 0.51
    plain = decode(path)
    assert plain.notes == (("deep greys stretched to 8 bits",) if depth == 16 else ())
    ignored = {b"gAMA": struct.pack(">I", 100_000), b"sBIT": bytes([min(depth, 5)]), b"sRGB": b"\0"}
    path = saved(tmp_path, png(values, depth, 0, *(chunk(*one) for one in ignored.items())))
    assert np.array_equal(decode(path).pixels, plain.pixels) and decode(path).notes == plain.notes


@pytest.mark.parametrize("depth", [1, 8, 16])
def test_the_transparent_grey_of_a_png_is_black(tmp_path: Path, depth: int) -> None:
    """Of deep greys it takes no part in the stretch."""
    values = rng().integers(0, 2**depth, (HIGH, WIDE))
    clear = int(values.max())
    path = saved(tmp_path, png(values, depth, 0, chunk(b"tRNS", struct.pack(">H", clear))))
    seen = values != clear
    inside = values[seen]
    low, high = (inside.min(), inside.max()) if depth == 16 else (0, 2**depth - 1)
    assert far(path, rgb(np.where(seen, (values - low) / (high - low) * 255, 0))) < 0.51
    assert "transparency laid on black" in decode(path).notes


@pytest.mark.parametrize(("depth", "colour"), [(2, 0), (4, 0), (16, 2)])
def test_a_transparent_colour_that_pillow_misreads_is_refused(tmp_path: Path, depth: int, colour: int) -> None:
    values = rng().integers(0, 2**depth, (HIGH, WIDE, 3)[: 3 if colour else 2])
    clear = struct.pack(">HHH", *values[2, 3]) if colour else struct.pack(">H", values[2, 3])
    with pytest.raises(DataError, match="a transparent colour in a PNG of this depth cannot be read"):
        decode(saved(tmp_path, png(values, depth, colour, chunk(b"tRNS", clear))))


@pytest.mark.parametrize("depth", [8, 16])
def test_colours_of_a_png(tmp_path: Path, depth: int) -> None:
    """The high byte of 16 bits is taken, never the low one."""
    top = 2**depth - 1
    colours, opacity = rng().integers(0, top + 1, (HIGH, WIDE, 3)), rng().integers(0, top + 1, (HIGH, WIDE))
    opacity[0], opacity[1] = top, 0
    path = saved(tmp_path, png(colours, depth, 2))
    assert np.array_equal(decode(path).pixels, itk(path) >> (depth - 8))
    assert far(path, itk(path) / top * 255) < 1
    laid = colours / top * 255 * (opacity[..., None] / top)
    assert far(saved(tmp_path, png(np.dstack([colours, opacity]), depth, 6)), laid) < (0.51 if depth == 8 else 2)
    grey = np.dstack([colours[..., 0], opacity])
    assert far(saved(tmp_path, png(grey, depth, 4)), rgb(laid[..., 0])) < (0.51 if depth == 8 else 2)


@pytest.mark.parametrize("depth", [1, 2, 4, 8])
def test_palettes_of_a_png(tmp_path: Path, depth: int) -> None:
    table, places = rng().integers(0, 256, (2**depth, 3)), rng().integers(0, 2**depth, (HIGH, WIDE))
    opacity = rng().integers(0, 256, 2**depth)
    colours = chunk(b"PLTE", table.astype(np.uint8).tobytes())
    assert (
        far(saved(tmp_path, png(places, depth, 3, colours)), itk(saved(tmp_path, png(places, depth, 3, colours)))) == 0
    )
    clear = chunk(b"tRNS", opacity.astype(np.uint8).tobytes())
    assert (
        far(saved(tmp_path, png(places, depth, 3, colours, clear)), table[places] * opacity[places][..., None] / 255)
        <= 1
    )


def test_a_picture_that_a_camera_has_put_behind_a_jpeg_is_no_frame(tmp_path: Path) -> None:
    first, second = (Image.new("RGB", (8, 8), (shade,) * 3) for shade in (10, 200))
    first.save(tmp_path / "x.jpg", format="MPO", save_all=True, append_images=[second])
    picture = decode(tmp_path / "x.jpg")
    assert abs(int(picture.pixels.mean()) - 10) < 3 and picture.notes == ()


# ------------------------------------------------------- JPEG 2000 and pixmaps


@pytest.mark.parametrize("kind", ["JP2", "J2K"])
@pytest.mark.parametrize("channels", [2, 3, 4])
@pytest.mark.parametrize("bits", [9, 12, 16])
def test_deep_colours_of_a_jpeg_2000_are_scaled(tmp_path: Path, bits: int, channels: int, kind: str) -> None:
    """White is white, and so is what rounds to it; alpha is laid on black."""
    white = 2**bits - 1
    values = rng().integers(0, white + 1, (HIGH * 8, WIDE * 8, channels))
    values[0], values[1], values[2] = white, 0, round(white * 254.6 / 255)
    content = imagecodecs.jpeg2k_encode(
        values.astype(np.uint16), level=0, reversible=True, bitspersample=bits, codecformat=kind
    )
    (tmp_path / "x.jp2").write_bytes(content)
    colours = values[..., : channels if channels == 3 else channels - 1] / white * 255
    truth = colours if channels == 3 else colours * values[..., -1:] / white
    assert far(tmp_path / "x.jp2", truth) < (0.51 if channels == 3 else 2)
    assert decode(tmp_path / "x.jp2").notes == (
        f"{bits}-bit colour scaled to 8 bits",
        *(["transparency laid on black"] if channels != 3 else []),
    )


@pytest.mark.parametrize("kind", ["JP2", "J2K"])
@pytest.mark.parametrize("bits", [9, 10, 12, 16])
def test_deep_greys_of_a_jpeg_2000_are_stretched(tmp_path: Path, bits: int, kind: str) -> None:
    values = np.linspace(0, 2**bits - 1, HIGH * WIDE * 64).round().reshape(HIGH * 8, WIDE * 8)
    content = imagecodecs.jpeg2k_encode(
        values.astype(np.uint16), level=0, reversible=True, bitspersample=bits, codecformat=kind
    )
    (tmp_path / "x.jp2").write_bytes(content)
    assert far(tmp_path / "x.jp2", rgb(stretched(values))) < 0.51
    assert decode(tmp_path / "x.jp2").notes == ("deep greys stretched to 8 bits",)


@pytest.mark.parametrize(("space", "channels"), [("SYCC", 3), ("CMYK", 4)])
def test_deep_colours_of_a_jpeg_2000_that_are_not_rgb_are_refused(tmp_path: Path, space: str, channels: int) -> None:
    values = rng().integers(0, 2**16, (32, 32, channels)).astype(np.uint16)
    content = imagecodecs.jpeg2k_encode(values, level=0, reversible=True, mct=False, colorspace=space)
    (tmp_path / "x.jp2").write_bytes(content)
    with pytest.raises(DataError, match="a JPEG 2000 of 16 bits with these colours cannot be read; convert it to PNG"):
        decode(tmp_path / "x.jp2")


def test_a_deep_jpeg_2000_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    values = rng().integers(0, 2**16, (64, 64, 3)).astype(np.uint16)
    (tmp_path / "x.jp2").write_bytes(imagecodecs.jpeg2k_encode(values, level=0, reversible=True)[:-500])
    with pytest.raises(DataError, match="cannot decode"):
        decode(tmp_path / "x.jp2")


def test_a_jpeg_2000_that_is_larger_than_its_header_says_is_refused_undecoded(tmp_path: Path) -> None:
    content = imagecodecs.jpeg2k_encode(np.zeros((32, 32, 3), np.uint16), level=0, reversible=True)
    start = content.index(b"\xff\x4f\xff\x51") + 8
    size = struct.pack(">II", 10_000, 10_000)
    huge = content[:start] + size + bytes(8) + size + content[start + 24 :]
    (tmp_path / "x.jp2").write_bytes(huge)
    with pytest.raises(DataError, match="cannot decode"):
        decode(tmp_path / "x.jp2")


@pytest.mark.parametrize("most", [255, 1023, 65535])
def test_colours_of_a_portable_pixmap(tmp_path: Path, most: int) -> None:
    values = rng().integers(0, most + 1, (HIGH, WIDE, 3))
    body = values.astype("u1" if most == 255 else ">u2").tobytes()
    (tmp_path / "x.ppm").write_bytes(f"P6 {WIDE} {HIGH} {most}\n".encode() + body)
    assert far(tmp_path / "x.ppm", values / most * 255) < 0.51
    bits = {1023: 10, 65535: 16}
    assert decode(tmp_path / "x.ppm").notes == (() if most == 255 else (f"{bits[most]}-bit colour scaled to 8 bits",))
