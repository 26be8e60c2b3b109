"""From all kinds of files to 8-bit RGB."""

from __future__ import annotations

import hashlib
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path
from queue import SimpleQueue
from threading import Timer

import numpy as np
import pydicom
import pytest
from PIL import Image

from safemed_eval.data.images import guarded as _guarded
from safemed_eval.data.images.dicom import DICOM_TAGS
from safemed_eval.data.images.files import decode, fit
from safemed_eval.data.images.paths import Place
from safemed_eval.data.images.picture import MAX_PIXELS
from safemed_eval.errors import DataError, RunError

RGB = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
GREY = RGB[..., 0]


def saved(tmp_path: Path, image: Image.Image, name: str, **settings: object) -> Path:
    path = tmp_path / name
    image.save(path, **settings)
    return path


@pytest.mark.parametrize("name", ["a.png", "a.bmp", "a.tif", "a.PNG", "no_extension"])
def test_lossless_rgb_is_kept(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    Image.fromarray(RGB).save(path, format=None if "." in name else "png")
    picture = decode(path)
    assert np.array_equal(picture.pixels, RGB) and picture.notes == ()


def test_grey_palette_and_jpeg(tmp_path: Path) -> None:
    assert np.array_equal(decode(saved(tmp_path, Image.fromarray(GREY), "g.png")).pixels[..., 2], GREY)
    palette = Image.fromarray(GREY).convert("P")
    assert np.array_equal(decode(saved(tmp_path, palette, "p.png")).pixels[..., 1], GREY)
    smooth = Image.fromarray(np.tile(np.arange(0, 240, 8, dtype=np.uint8), (20, 1)))
    jpeg = decode(saved(tmp_path, smooth, "j.jpg", quality=95)).pixels
    assert np.abs(jpeg[..., 0].astype(int) - np.asarray(smooth)).max() <= 3


def test_cmyk_becomes_rgb(tmp_path: Path) -> None:
    red = Image.new("RGB", (16, 16), (230, 20, 30))
    pixels = decode(saved(tmp_path, red.convert("CMYK"), "c.jpg", quality=95)).pixels
    assert np.abs(pixels.reshape(-1, 3).mean(0) - (230, 20, 30)).max() < 8


def test_transparency_is_laid_on_black(tmp_path: Path) -> None:
    opaque = Image.fromarray(np.dstack([GREY, np.full_like(GREY, 255)]))
    assert opaque.mode == "LA"
    picture = decode(saved(tmp_path, opaque, "la.png"))
    assert np.array_equal(picture.pixels[..., 0], GREY) and picture.notes == ()
    half = Image.fromarray(np.dstack([RGB, np.full_like(GREY, 0)]))
    picture = decode(saved(tmp_path, half, "rgba.png"))
    assert picture.pixels.max() == 0 and picture.notes == ("transparency laid on black",)


def test_exif_orientation_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    picture = decode(saved(tmp_path, Image.fromarray(RGB), "e.png", exif=exif))
    assert np.array_equal(picture.pixels, np.rot90(RGB, -1))
    assert picture.notes == ("EXIF orientation applied",)


@pytest.mark.parametrize("dtype", [np.uint16, np.int32, np.float32])
def test_deep_greys_are_stretched(tmp_path: Path, dtype: type) -> None:
    values = np.linspace(100, 4000, 600).reshape(20, 30).astype(dtype)
    picture = decode(saved(tmp_path, Image.fromarray(values), "d.tif"))
    assert (picture.pixels.min(), picture.pixels.max()) == (0, 255)
    assert (np.diff(picture.pixels[..., 0].astype(int).ravel()) >= 0).all()
    assert picture.notes == ("deep greys stretched to 8 bits",)


def truncated() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(RGB).save(buffer, "PNG")
    return buffer.getvalue()[:-200]


def bomb() -> bytes:
    """A PNG that says it has 50,000 x 50,000 pixels."""

    def chunk(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))

    head = struct.pack(">IIBBBBB", 50_000, 50_000, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(bytes(1000)))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not an image"),
        (b"hello, I am text" * 20, "not an image"),
        (truncated(), "cannot decode"),
        (bomb(), "decompression bomb"),
        (b"\0" * 128 + b"DICM" + b"\0" * 64, "has no TransferSyntaxUID"),
    ],
)
def test_broken_files_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "x.png").write_bytes(content)
    with pytest.raises(DataError, match=message):
        decode(tmp_path / "x.png")


def test_what_the_system_does_not_let_read_is_not_said_to_be_damaged(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"^cannot read .*: Is a directory$"):
        decode(tmp_path)


def test_images_above_the_limit_are_refused_before_decoding(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Image.MAX_IMAGE_PIXELS == MAX_PIXELS
    monkeypatch.setattr("safemed_eval.data.images.picture.MAX_PIXELS", 100)
    with pytest.raises(DataError, match="decompression bomb"):
        decode(saved(tmp_path, Image.fromarray(RGB), "a.png"))


def test_not_a_number_is_refused(tmp_path: Path) -> None:
    values = np.ones((5, 5), np.float32)
    values[2, 2] = np.nan
    with pytest.raises(DataError, match="NaN"):
        decode(saved(tmp_path, Image.fromarray(values), "n.tif"))


@pytest.mark.parametrize(
    ("field", "value"), [("RescaleSlope", "nan"), ("RescaleIntercept", "inf"), ("WindowWidth", "nan")]
)
@pytest.mark.filterwarnings("ignore")
def test_dicom_fields_that_are_not_finite_are_refused(field: str, value: str, tmp_path: Path) -> None:
    """A slope of NaN would make every pixel black."""
    from pydicom import dcmread, examples

    dataset = dcmread(examples.get_path("ct"))
    dataset.WindowCenter, dataset.WindowWidth = 1000, 500
    setattr(dataset, field, value)
    dataset.save_as(tmp_path / "x.dcm")
    with pytest.raises(DataError, match="NaN or infinite"):
        decode(tmp_path / "x.dcm")


def test_files_above_the_limit_are_refused_unread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("safemed_eval.data.images.files.MAX_BYTES", 100)
    with pytest.raises(DataError, match="over the limit of 100"):
        decode(saved(tmp_path, Image.fromarray(RGB), "a.png"))


# ---------------------------------------------------------- in other processes

LOOK = "safemed_eval.data.images.fingerprints:fingerprint"


def test_an_image_that_takes_too_long_is_named_and_the_others_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The decoder never comes to an end, and time runs out when it has begun."""
    good, bomb = saved(tmp_path, Image.fromarray(RGB), "good.png"), tmp_path / "bomb.jpg"
    begun = bomb.with_suffix(".begun")

    class OnceBegun(Timer):
        def run(self) -> None:
            assert self.interval == _guarded.LIMIT_S
            while not begun.exists():
                if self.finished.wait(0.01):
                    return
            begun.unlink()
            self.function()

    monkeypatch.setattr(_guarded, "Timer", OnceBegun)
    first, second = _guarded.guarded("endless:look", [Place(bomb), Place(good)])
    assert first == (None, f"takes more than 60 s to decode: {bomb}")
    assert second[1] is None and second[0][0] == hashlib.sha256(good.read_bytes()).hexdigest()
    assert list(_guarded.guarded(LOOK, [Place(good)])) == [second], "a process that was killed is not asked again"


def test_an_answer_that_comes_as_time_runs_out_counts_and_the_next_image_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class JustNow(Timer):
        def run(self) -> None:
            self.finished.wait()
            self.function()

    monkeypatch.setattr(_guarded, "Timer", JustNow)
    good = saved(tmp_path, Image.fromarray(RGB), "good.png")
    assert [problem for _, problem in _guarded.guarded(LOOK, [Place(good), Place(good)])] == [None, None]


def test_an_image_that_crashes_its_decoder_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    crash = "import os, sys; print(1, flush=True); sys.stdin.readline(); os.abort()"
    monkeypatch.setattr(_guarded, "_SERVE", crash)
    monkeypatch.setattr(_guarded, "_idle", SimpleQueue())
    ((found, problem),) = _guarded.guarded(LOOK, [Place(tmp_path / "x.png")])
    assert found is None and problem == f"its decoder crashed, exit code -6: {tmp_path / 'x.png'}"


@pytest.mark.parametrize("how", ["no python", "no answer"])
def test_no_process_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str) -> None:
    monkeypatch.setattr(_guarded, "_idle", SimpleQueue())
    if how == "no python":
        monkeypatch.setattr(_guarded.sys, "executable", str(tmp_path / "python"))
    else:
        monkeypatch.setattr(_guarded, "_SERVE", "raise SystemExit")
    with pytest.raises(RunError, match="images are read in processes of their own"):
        list(_guarded.guarded(LOOK, [Place(tmp_path / "x.png")]))


def test_outcomes_come_in_the_order_of_the_files(tmp_path: Path) -> None:
    files = [saved(tmp_path, Image.new("L", (9, 9), shade), f"{shade}.png") for shade in range(40)]
    hashes = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
    assert [found[0] for found, _ in _guarded.guarded(LOOK, list(map(Place, files)))] == hashes


def test_fit_resizes_once() -> None:
    assert fit(RGB, None, "stretch") is RGB
    expected = np.asarray(Image.fromarray(RGB).resize((16, 12), Image.Resampling.BICUBIC))
    assert np.array_equal(fit(RGB, (12, 16), "stretch"), expected)


# --------------------------------------------------------------------- DICOM


@pytest.mark.parametrize(
    ("name", "shape", "notes"),
    [
        ("CT_small.dcm", (128, 128), ["no window: stretched from min to max"]),
        ("MR_small.dcm", (64, 64), ["window 600/1600"]),
        ("MR_small_RLE.dcm", (64, 64), ["window 600/1600"]),
        ("RG3_J2KI.dcm", (1760, 1760), ["window 550/1024", "MONOCHROME1 inverted"]),
        ("emri_small.dcm", (64, 64), ["frame 6 of 10 (the middle one)"]),
        ("examples_palette.dcm", (350, 800), ["palette"]),
        ("examples_ybr_color.dcm", (240, 320), ["frame 16 of 30 (the middle one)"]),
    ],
)
def test_dicom(real_data: Callable[[str], Path], name: str, shape: tuple[int, int], notes: list[str]) -> None:
    picture = decode(real_data("dicom") / name)
    assert picture.pixels.shape == (*shape, 3) and picture.pixels.dtype == np.uint8
    assert picture.pixels.std() > 5
    assert {"DICOM", *notes} <= set(picture.notes)


def test_dicom_compression_changes_nothing(real_data: Callable[[str], Path]) -> None:
    folder = real_data("dicom")
    assert np.array_equal(decode(folder / "MR_small.dcm").pixels, decode(folder / "MR_small_RLE.dcm").pixels)


def test_truncated_dicom_is_refused(real_data: Callable[[str], Path]) -> None:
    with pytest.raises(DataError, match="number of bytes of pixel data is less than expected"):
        decode(real_data("dicom") / "MR_truncated.dcm")


def dicom(tmp_path: Path, values: np.ndarray, **attributes: object) -> Path:
    """A minimal DICOM file with these pixels."""
    from pydicom.dataset import Dataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage

    dataset = Dataset()
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.file_meta.MediaStorageSOPClassUID = SecondaryCaptureImageStorage
    dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    dataset.SOPClassUID, dataset.SOPInstanceUID = SecondaryCaptureImageStorage, "1.2.3"
    dataset.Rows, dataset.Columns = values.shape
    dataset.BitsAllocated = dataset.BitsStored = 16
    dataset.HighBit, dataset.PixelRepresentation, dataset.SamplesPerPixel = 15, 0, 1
    dataset.PhotometricInterpretation = "MONOCHROME2"
    for name, value in attributes.items():
        setattr(dataset, name, value)
    dataset.PixelData = values.astype(np.uint16).tobytes()
    dataset.save_as(tmp_path / "x.dcm", enforce_file_format=True)
    return tmp_path / "x.dcm"


def test_window_and_rescale_slope(tmp_path: Path) -> None:
    """Hounsfield = stored - 1024; a window of centre 40 and width 400 is black below -160 and white above 240."""
    hounsfield = np.array([[-1000, -160, -60, 40, 140, 240, 1000]])
    path = dicom(tmp_path, hounsfield + 1024, RescaleSlope=1, RescaleIntercept=-1024, WindowCenter=40, WindowWidth=400)
    shown = decode(path).pixels[0, :, 0].astype(int)
    assert np.abs(shown - [0, 0, 64, 128, 191, 255, 255]).max() <= 1
    inverted = dicom(
        tmp_path,
        hounsfield + 1024,
        RescaleSlope=1,
        RescaleIntercept=-1024,
        WindowCenter=40,
        WindowWidth=400,
        PhotometricInterpretation="MONOCHROME1",
    )
    assert np.array_equal(decode(inverted).pixels[0, :, 0].astype(int), 255 - shown)


def test_voi_lut_after_the_modality_lut(tmp_path: Path) -> None:
    """Stored 0..3, rescaled to 10..13, looked up in a table of 8 bits that begins at 10."""
    from pydicom.dataset import Dataset
    from pydicom.sequence import Sequence

    lut = Dataset()
    lut.add_new("LUTDescriptor", "US", [4, 10, 8])
    lut.add_new("LUTData", "US", [5, 250, 17, 90])
    stored = np.array([[0, 1, 2, 3]])
    path = dicom(tmp_path, stored, RescaleSlope=1, RescaleIntercept=10, VOILUTSequence=Sequence([lut]))
    picture = decode(path)
    assert picture.pixels[0, :, 0].tolist() == [5, 250, 17, 90] and "VOI LUT" in picture.notes


def test_sixteen_bit_colour_dicom_is_scaled(tmp_path: Path) -> None:
    values = np.array([[[0, 10000, 40000], [20000, 0, 40000]]])
    path = dicom(tmp_path, values[..., 0], SamplesPerPixel=3, PlanarConfiguration=0, PhotometricInterpretation="RGB")
    from pydicom import dcmread

    dataset = dcmread(path)
    dataset.PixelData = values.astype(np.uint16).tobytes()
    dataset.save_as(path)
    picture = decode(path)
    assert picture.pixels.tolist() == [[[0, 39, 156], [78, 0, 156]]], "value / 257"
    assert picture.notes == ("DICOM", "16-bit colour scaled to 8 bits")


def test_no_header_of_a_dicom_file_is_read_but_what_its_pixels_need(tmp_path: Path) -> None:
    """Names, dates and free text are not even in memory, so that neither a record nor an error can hold them."""
    from pydicom import dcmread

    path = dicom(
        tmp_path, np.arange(6).reshape(2, 3), PatientName="Doe^Jane", StudyDate="20200101", InstitutionName="St X"
    )
    names = {element.keyword for element in dcmread(path, specific_tags=list(DICOM_TAGS))}
    assert {"Rows", "PixelData"} <= names and not names & {"PatientName", "StudyDate", "InstitutionName"}
    seen = []
    read = pydicom.dcmread
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pydicom, "dcmread", lambda *args, **settings: seen.append(read(*args, **settings)) or seen[-1])
        decode(path)
    assert {element.keyword for element in seen[0]} == names
