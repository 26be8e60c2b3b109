"""Images: each is x.png (or as named) of a table with one question."""

from __future__ import annotations

import csv
import io
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from bad.case import Case, Make, described, evaluated, root, row

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
GREY = RGB[..., 0]
DEEP = np.linspace(100, 4000, 600).reshape(20, 30)


def table(folder: Path, image: str) -> None:
    with (folder / "t.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, row())
        writer.writeheader()
        writer.writerow(row(image=image))


def holding(content: Callable[[], bytes], name: str) -> Make:
    def make(folder: Path) -> None:
        (folder / name).write_bytes(content())
        table(folder, name)

    return make


def saved(image: Image.Image, kind: str, **settings: Any) -> bytes:
    stream = io.BytesIO()
    image.save(stream, kind, **settings)
    return stream.getvalue()


def picture(values: Any = RGB, kind: str = "PNG", mode: str | None = None, **settings: Any) -> Callable[[], bytes]:
    def make() -> bytes:
        image = Image.fromarray(values)
        return saved(image.convert(mode) if mode else image, kind, **settings)

    return make


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(*chunks: bytes, width: int = 8, height: int = 8, depth: int = 8, colour: int = 2) -> bytes:
    head = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + b"".join(chunks) + chunk(b"IEND", b"")


def pixels(width: int = 8, height: int = 8, channels: int = 3, size: int = 1) -> bytes:
    """An image of zeros, as a PNG holds it."""
    return chunk(b"IDAT", zlib.compress((b"\0" + bytes(width * channels * size)) * height))


def frames(kind: str, **settings: Any) -> Callable[[], bytes]:
    def make() -> bytes:
        first, second = (Image.fromarray(np.full((8, 8, 3), value, np.uint8)) for value in (10, 200))
        return saved(first, kind, save_all=True, append_images=[second], **settings)

    return make


def cmyk() -> bytes:
    return saved(Image.fromarray(RGB).convert("CMYK"), "JPEG", quality=95)


def with_exif(body: bytes) -> Callable[[], bytes]:
    """A JPEG whose EXIF segment holds this."""
    return lambda: saved(Image.fromarray(RGB), "JPEG", exif=b"Exif\0\0" + body)


def turned(orientation: int) -> Callable[[], bytes]:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return lambda: saved(Image.fromarray(RGB), "JPEG", exif=exif)


def talkative(size: int) -> bytes:
    info = PngImagePlugin.PngInfo()
    info.add_text("Comment", "x" * size)
    return saved(Image.fromarray(RGB), "PNG", pnginfo=info)


def text_bomb() -> bytes:
    """A compressed comment of a few kilobytes that unpacks to 80 MB."""
    return png(chunk(b"zTXt", b"Comment\0\0" + zlib.compress(bytes(80_000_000))), pixels())


def dicom(values: Any = None, *, keep: int | None = None, meta: bytes = b"DICM", **attributes: Any) -> bytes:
    """A small DICOM file; attributes replace its own, None takes one out. `keep`: cut off after so many bytes."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    grid = DEEP.astype(np.uint16) if values is None else np.asarray(values)
    bits = 8 * grid.dtype.itemsize
    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = attributes.pop("syntax", ExplicitVRLittleEndian)
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    given: dict[str, Any] = {
        "SOPClassUID": SecondaryCaptureImageStorage,
        "SOPInstanceUID": "1.2.3",
        "PatientName": "Doe^Jane",
        "Rows": grid.shape[0],
        "Columns": grid.shape[1],
        "BitsAllocated": bits,
        "BitsStored": bits,
        "HighBit": bits - 1,
        "PixelRepresentation": 0,
        "SamplesPerPixel": 1 if grid.ndim == 2 else grid.shape[2],
        "PhotometricInterpretation": "MONOCHROME2",
        "PixelData": grid.tobytes(),
    }
    if grid.dtype.kind == "f":
        given["FloatPixelData" if bits == 32 else "DoubleFloatPixelData"] = given.pop("PixelData")
        for name in ("BitsStored", "HighBit", "PixelRepresentation"):
            del given[name]
    for name, value in (given | attributes).items():
        if value is not None:
            setattr(dataset, name, value)
    stream = io.BytesIO()
    dataset.save_as(stream, enforce_file_format=True)
    content = stream.getvalue()
    return content[:128] + meta + content[132:keep]


def broken_float(value: float) -> Callable[[], bytes]:
    grid = DEEP.astype(np.float32)
    grid[3, 4] = value
    return lambda: dicom(grid)


def tiff_with(value: float) -> Callable[[], bytes]:
    grid = DEEP.astype(np.float32)
    grid[3, 4] = value
    return picture(grid, "TIFF")


def _folder(folder: Path) -> None:
    (folder / "x.png").mkdir()
    table(folder, "x.png")


def _fifo(folder: Path) -> None:
    os.mkfifo(folder / "x.png")
    table(folder, "x.png")


def _link(to: str) -> Make:
    def make(folder: Path) -> None:
        (folder / "x.png").symlink_to(to)
        table(folder, "x.png")

    return make


def _locked(folder: Path) -> None:
    holding(picture(), "x.png")(folder)
    (folder / "x.png").chmod(0)


REFUSED: list[tuple[str, str, Callable[[], bytes], Sequence[str]]] = [
    ("zero bytes", "x.png", lambda: b"", ["x.png", "not an image"]),
    ("text", "x.png", lambda: b"hello, I am text" * 20, ["x.png", "not an image"]),
    ("truncated png", "x.png", lambda: picture()()[:-200], ["x.png", "cannot decode"]),
    ("truncated jpeg", "x.jpg", lambda: picture(kind="JPEG")()[:-200], ["x.jpg", "cannot decode"]),
    ("truncated gif", "x.gif", lambda: picture(GREY, "GIF")()[:-200], ["x.gif", "cannot decode"]),
    ("truncated webp", "x.webp", lambda: picture(kind="WEBP")()[:-200], ["x.webp", "an"]),
    ("truncated tiff", "x.tif", lambda: picture(kind="TIFF")()[:1500], ["x.tif", "an"]),
    ("truncated bmp", "x.bmp", lambda: picture(kind="BMP")()[:-900], ["x.bmp", "cannot decode"]),
    ("truncated jpeg2000", "x.jp2", lambda: picture(kind="JPEG2000")()[:-700], ["x.jp2", "cannot decode"]),
    ("jpeg header only", "x.jpg", lambda: picture(kind="JPEG")()[:30], ["x.jpg", "an"]),
    ("png without pixels", "x.png", lambda: png(), ["x.png", "cannot decode"]),
    ("png of garbage", "x.png", lambda: png(chunk(b"IDAT", b"garbage")), ["x.png", "cannot decode"]),
    ("png of no size", "x.png", lambda: png(pixels(), width=0), ["x.png", "an"]),
    ("png with a wrong checksum", "x.png", lambda: png(pixels()).replace(b"IHDR\0", b"IHDR\1", 1), ["x.png", "an"]),
    ("png bomb", "x.png", lambda: png(pixels(), width=50_000, height=50_000), ["decompression bomb"]),
    ("png smaller bomb", "x.png", lambda: png(pixels(), width=10_000, height=10_000), ["decompression bomb"]),
    ("png of 20000 x 20000 zeros", "x.png", lambda: png(pixels(20000, 200), width=20000, height=20000), ["bomb"]),
    ("png text bomb", "x.png", text_bomb, ["x.png", "Decompressed data too large"]),
    ("bmp bomb", "x.bmp", lambda: picture(kind="BMP")()[:18] + struct.pack("<ii", 60_000, 60_000), ["x.bmp", "an"]),
    ("gif bomb", "x.gif", lambda: b"GIF89a\xff\xff\xff\xff" + picture(GREY, "GIF")()[10:], ["decompression bomb"]),
    ("tiff with nan", "x.tif", tiff_with(np.nan), ["NaN or infinite"]),
    ("tiff with infinity", "x.tif", tiff_with(np.inf), ["NaN or infinite"]),
    ("postscript", "x.eps", lambda: picture(kind="EPS")(), ["x.eps", "not an image", "PNG"]),
    ("pdf", "x.png", lambda: picture(kind="PDF")(), ["x.png", "not an image"]),
    ("svg", "x.svg", lambda: b"<svg xmlns='http://www.w3.org/2000/svg'/>", ["x.svg", "not an image"]),
    ("zip", "x.png", lambda: b"PK\3\4" + bytes(60), ["x.png", "not an image"]),
    ("heic", "x.heic", lambda: b"\0\0\0\x18ftypheic" + bytes(99), ["x.heic", "not an image"]),
    ("numpy file", "x.npy", lambda: b"\x93NUMPY\1\0" + bytes(99), ["x.npy", "not an image"]),
    ("dicom preamble only", "x.dcm", lambda: bytes(128) + b"DICM" + bytes(64), ["x.dcm", "TransferSyntaxUID"]),
    ("dicom without preamble", "x.dcm", lambda: dicom()[132:], ["x.dcm", "DICOM"]),
    ("png called dicom", "x.dcm", picture(), ["x.dcm", "DICOM"]),
    ("dicom without pixels", "x.dcm", lambda: dicom(PixelData=None), ["x.dcm", "ixel"]),
    ("dicom cut off", "x.dcm", lambda: dicom(keep=-500), ["x.dcm", "pixel data"]),
    ("dicom cut off in its header", "x.dcm", lambda: dicom(keep=300), ["x.dcm", "it holds no pixels"]),
    ("dicom with nan", "x.dcm", broken_float(np.nan), ["NaN or infinite"]),
    ("dicom with infinity", "x.dcm", broken_float(-np.inf), ["NaN or infinite"]),
    (
        "dicom with nan behind a window",
        "x.dcm",
        lambda: dicom(
            np.where(np.indices((20, 30)).sum(0) == 4, np.nan, DEEP).astype(np.float32),
            WindowCenter=2000,
            WindowWidth=900,
        ),
        ["NaN or infinite"],
    ),
    ("dicom of no rows", "x.dcm", lambda: dicom(Rows=0), ["x.dcm", "cannot decode"]),
    ("dicom without rows", "x.dcm", lambda: dicom(Rows=None), ["x.dcm", "has no Rows"]),
    ("dicom bomb", "x.dcm", lambda: dicom(Rows=65535, Columns=65535), ["decompression bomb"]),
    ("dicom of two channels", "x.dcm", lambda: dicom(SamplesPerPixel=2), ["x.dcm", "cannot decode"]),
    ("dicom of another endianness", "x.dcm", lambda: dicom(BitsAllocated=32, BitsStored=32, HighBit=31), ["x.dcm"]),
    ("dicom with a window of no width", "x.dcm", lambda: dicom(WindowCenter=9, WindowWidth=0), ["x.dcm", "9/0"]),
    ("dicom of an unknown colour", "x.dcm", lambda: dicom(PhotometricInterpretation="PINK"), ["x.dcm", "PINK"]),
    (
        "dicom that is a video",
        "x.dcm",
        lambda: dicom().replace(b"1.2.840.10008.1.2.1\0", b"1.2.840.10008.9.9.9\0"),
        ["x.dcm", "cannot decode"],
    ),
    ("dicom with an endless slope", "x.dcm", lambda: dicom(RescaleSlope="1e400", RescaleIntercept=0), ["infinite"]),
    (
        "dicom with an endless slope behind a window",
        "x.dcm",
        lambda: dicom(RescaleSlope="1e400", RescaleIntercept=0, WindowCenter=2000, WindowWidth=900),
        ["infinite"],
    ),
]

FINE: list[tuple[str, str, Callable[[], bytes], Sequence[str]]] = [
    ("one pixel", "x.png", picture(RGB[:1, :1]), []),
    ("20000 x 2", "x.png", lambda: png(pixels(20000, 2), width=20000, height=2), []),
    ("2 x 20000", "x.png", lambda: png(pixels(2, 20000), width=2, height=20000), []),
    ("png called jpg", "x.jpg", picture(), []),
    ("jpg called png", "x.png", picture(kind="JPEG"), []),
    ("dicom called png", "x.png", lambda: dicom(), ["DICOM"]),
    ("no extension", "x", picture(), []),
    ("upper case", "X.PNG", picture(), []),
    ("name of many scripts", "süß 胸部 צילום.png", picture(), []),
    ("name with markup", "[red]x[-] <b>%20.png", picture(), []),
    ("one bit", "x.png", picture(GREY, mode="1"), []),
    ("palette", "x.png", picture(GREY, mode="P"), []),
    ("grey with alpha", "x.png", picture(mode="LA"), []),
    ("transparent", "x.png", picture(np.dstack([RGB, GREY])), ["transparency laid on black"]),
    ("16-bit grey", "x.png", picture(DEEP.astype(np.uint16)), ["deep greys stretched"]),
    ("16-bit colour", "x.png", lambda: png(pixels(size=2), depth=16), ["16-bit colour cut to 8 bits"]),
    ("float tiff", "x.tif", picture(DEEP.astype(np.float32), "TIFF"), ["deep greys stretched"]),
    ("cmyk", "x.jpg", cmyk, []),
    ("jpeg2000", "x.jp2", picture(kind="JPEG2000"), []),
    ("webp", "x.webp", picture(kind="WEBP"), []),
    ("portable pixmap", "x.ppm", picture(kind="PPM"), []),
    ("animated gif", "x.gif", frames("GIF"), ["frame 2 of 2 (the middle one)"]),
    ("animated png", "x.png", frames("PNG"), ["frame 2 of 2 (the middle one)"]),
    ("animated webp", "x.webp", frames("WEBP"), ["frame 2 of 2 (the middle one)"]),
    ("tiff of two pages", "x.tif", frames("TIFF"), ["frame 2 of 2 (the middle one)"]),
    ("exif of garbage", "x.jpg", with_exif(b"\xff\x00garbage" * 9), []),
    ("exif cut off", "x.jpg", with_exif(b"II*\0\x08\0\0\0\xff\xff"), []),
    ("exif that points nowhere", "x.jpg", with_exif(b"II*\0\xff\xff\xff\x7f"), []),
    ("exif orientation 99", "x.jpg", turned(99), []),
    ("exif orientation 6", "x.jpg", turned(6), ["EXIF orientation applied"]),
    ("broken colour profile", "x.png", picture(icc_profile=b"no profile"), []),
    ("a comment of 10 MB", "x.png", lambda: talkative(10_000_000), []),
    ("16-bit dicom", "x.dcm", lambda: dicom(), ["no window: stretched from min to max"]),
    ("8-bit dicom", "x.dcm", lambda: dicom(GREY), ["DICOM"]),
    ("float dicom", "x.dcm", lambda: dicom(DEEP.astype(np.float32)), ["DICOM"]),
    (
        "float dicom with a window",
        "x.dcm",
        lambda: dicom(DEEP.astype(np.float32), WindowCenter=2000, WindowWidth=900),
        ["window 2000/900"],
    ),
    ("inverted dicom", "x.dcm", lambda: dicom(PhotometricInterpretation="MONOCHROME1"), ["inverted"]),
    ("dicom with a window", "x.dcm", lambda: dicom(WindowCenter=2000, WindowWidth=900), ["window 2000/900"]),
    ("dicom of two frames", "x.dcm", lambda: dicom(NumberOfFrames=2, Rows=10), ["frame 2 of 2 (the middle one)"]),
]

CASES = [
    *(
        Case(name=f"image: {name}", make=holding(make, file), argv=evaluated(), says=("1 of 1", "q1", *says))
        for name, file, make, says in REFUSED
    ),
    *(
        Case(
            name=f"image: {name}", make=holding(make, file), argv=described(), says=("1 of them usable", *says), code=0
        )
        for name, file, make, says in FINE
    ),
    Case(name="image: a folder", make=_folder, argv=evaluated(), says=("image not found", "x.png")),
    Case(name="image: a pipe", make=_fifo, argv=evaluated(), says=("image not found", "x.png")),
    Case(name="image: missing", make=lambda f: table(f, "x.png"), argv=evaluated(), says=("not found", "--data-root")),
    Case(name="image: a link to itself", make=_link("x.png"), argv=evaluated(), says=("q1", "x.png")),
    Case(name="image: a link to nothing", make=_link("gone.png"), argv=evaluated(), says=("image not found",)),
    Case(name="image: a link out", make=_link("/etc/passwd"), argv=evaluated(), says=("leaves the data root",)),
    Case(name="image: a device", make=_link("/dev/zero"), argv=evaluated(), says=("leaves the data root",)),
]
if not root():
    CASES.append(Case(name="image: locked", make=_locked, argv=evaluated(), says=("cannot read", "x.png")))
