"""The linear map from a file's own pixels to the canvas, against Pillow and against its own definition."""

from __future__ import annotations

from itertools import product
from pathlib import Path

import numpy as np
import pytest
import torch
from bad.images import dicom
from PIL import Image

from safemed_eval.core import Item, Question
from safemed_eval.data import Canvas, canvas_of
from safemed_eval.data.file_path import FilePath
from safemed_eval.data.images.files import decode, fit
from safemed_eval.data.images.resample import How, Resize, norm_of, weights
from safemed_eval.data.own_pixels import own_pixels_of

SIDES = [(1, 1), (1, 9), (37, 5), (64, 64), (129, 300), (513, 1), (700, 401)]
SIZES = [(8, 8), (9, 12), (64, 64), (130, 97)]


@pytest.mark.parametrize("before", SIDES)
@pytest.mark.parametrize("size", SIZES)
def test_the_map_is_pillows_resize_of_floats(before: tuple[int, int], size: tuple[int, int]) -> None:
    grey = np.random.default_rng(0).normal(128, 60, before).astype(np.float32)
    theirs = np.asarray(Image.fromarray(grey, mode="F").resize(size[::-1], Image.Resampling.BICUBIC))
    ours = Resize(before=before, size=size)(torch.tensor(grey).double())
    assert np.abs(ours.numpy() - theirs).max() < 1e-4


@pytest.mark.parametrize("how", ["stretch", "pad"])
@pytest.mark.parametrize(("before", "size"), list(product(SIDES, SIZES)))
def test_rounded_and_clipped_after_each_pass_it_is_the_canvas(
    before: tuple[int, int], size: tuple[int, int], how: How
) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (*before, 3), dtype=np.uint8)
    resize = Resize(before=before, size=size, how=how)
    (height, width), (top, left) = resize._placed
    colours, rows, columns = pixels.transpose(2, 0, 1), weights(before[0], height), weights(before[1], width).T
    orders = [rows @ _rounded(colours @ columns), _rounded(rows @ colours) @ columns]  # Pillow takes the cheaper one
    offs = []
    for order in orders:
        shown = np.zeros((3, *size))
        shown[:, top : top + height, left : left + width] = _rounded(order)
        offs.append(np.abs(shown.transpose(1, 2, 0) - fit(pixels, size, how)))
    off = min(offs, key=lambda off: float(off.sum()))
    assert off.max() <= 1  # Pillow's weights are integers: a value halfway between two may fall on either side
    assert (off > 0).mean() < 0.01


def _rounded(levels: np.ndarray) -> np.ndarray:
    return np.floor(levels + 0.5).clip(0, 255)


def test_the_norms_are_those_of_the_table() -> None:
    factors = [1 / Resize(before=(n, n), size=(384, 384)).norm for n in (2048, 1024, 512, 384, 256, 224)]
    assert [round(factor, 2) for factor in factors] == [5.26, 2.64, 1.33, 1, 0.66, 0.58]


@pytest.mark.parametrize("how", ["stretch", "pad"])
@pytest.mark.parametrize(
    ("before", "size"), [((5, 9), (8, 8)), ((9, 4), (9, 12)), ((23, 17), (8, 9)), ((8, 8), (8, 8))]
)
def test_the_norm_is_the_largest_stretch(before: tuple[int, int], size: tuple[int, int], how: How) -> None:
    resize = Resize(before=before, size=size, how=how)
    units = torch.eye(3 * before[0] * before[1], dtype=torch.float64)
    matrix = resize(units.view(-1, 3, *before)).flatten(1).T
    largest = float(torch.linalg.matrix_norm(matrix, 2))
    assert largest <= resize.norm <= largest * (1 + 1e-8)


def test_a_norm_is_that_of_the_whole_matrix() -> None:
    for before, after in [(1, 9), (9, 1), (100, 37), (37, 100), (5, 5)]:
        exact = np.linalg.norm(weights(before, after), 2)
        assert exact <= norm_of(before, after) <= exact * (1 + 1e-8)


@pytest.mark.parametrize("how", ["stretch", "pad"])
def test_the_path_of_a_file_shows_what_the_canvas_shows(tmp_path: Path, how: How) -> None:
    pixels = np.random.default_rng(2).integers(0, 256, (2, 31, 50, 3), dtype=np.uint8)
    canvas = Canvas(size=(16, 20), fit=how)
    images = torch.from_numpy(pixels).permute(0, 3, 1, 2).float() / 255
    images.requires_grad_()
    shown = FilePath(canvas)(images)
    for name, row, array in zip(("a.png", "b.png"), shown, pixels, strict=True):
        Image.fromarray(array).save(tmp_path / name)
        assert torch.equal(row.detach(), canvas_of(_item(tmp_path, name), canvas))
    slope = torch.randn(shown.shape, generator=torch.Generator().manual_seed(0))
    shown.backward(slope)
    linear = Resize(before=(31, 50), size=(16, 20), how=how)
    x = torch.zeros(images.shape, dtype=torch.float64, requires_grad=True)
    linear(x).backward(slope.double())
    assert images.grad is not None and x.grad is not None
    assert torch.allclose(images.grad.double(), x.grad, atol=1e-5)


def test_the_own_pixels_of_a_file(tmp_path: Path) -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (9, 7, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    own = own_pixels_of(_item(tmp_path, "a.png"), Canvas(size=(8, 8)))
    assert torch.equal(own.pixels * 255, torch.tensor(pixels).permute(2, 0, 1).double())
    assert own.resize == Resize(before=(9, 7), size=(8, 8))
    assert own.window is None


WINDOW = {"WindowCenter": 50.0, "WindowWidth": 41.0, "RescaleSlope": -0.5, "RescaleIntercept": 60.0}


@pytest.mark.parametrize("more", [{}, {"VOILUTFunction": "LINEAR_EXACT"}, {"PresentationLUTShape": "INVERSE"}])
def test_a_linear_window_is_a_straight_line_that_is_cut_off(tmp_path: Path, more: dict[str, str]) -> None:
    """Formulas of DICOM PS3.3 C.11.2.1.2; the gain is the slope of the greys within the window."""
    stored = np.arange(144, dtype=np.uint16).reshape(12, 12)
    (tmp_path / "a.dcm").write_bytes(dicom(stored, **WINDOW, **more))
    exact = more.get("VOILUTFunction") == "LINEAR_EXACT"
    center, width = (50.0, 41.0) if exact else (49.5, 40.0)
    line = ((60.0 - 0.5 * stored - center) / width + 0.5) * 255
    line = 255 - line if "PresentationLUTShape" in more else line
    picture = decode(tmp_path / "a.dcm")
    window = picture.window
    assert window is not None
    assert np.allclose(window.greys, line.clip(0, 255), atol=1e-9)
    assert window.gain == pytest.approx(0.5 * 255 / width)
    assert window.cut == ((line <= 0) | (line >= 255)).mean() > 0
    assert np.abs(window.greys - picture.pixels[..., 0]).max() <= 0.5 + 1e-9
    own = own_pixels_of(_item(tmp_path, "a.dcm"), Canvas(size=(8, 8)))
    assert torch.equal(own.pixels * 255, torch.tensor(window.greys).expand(3, 12, 12))


@pytest.mark.parametrize(
    "view",
    [
        {},
        {"WindowCenter": 50, "WindowWidth": 1},
        {"WindowCenter": 50, "WindowWidth": 40, "VOILUTFunction": "SIGMOID"},
        {"WindowCenter": 50, "WindowWidth": 40, "RescaleSlope": 0, "RescaleIntercept": 1},
    ],
)
def test_what_is_no_straight_line_has_no_window(tmp_path: Path, view: dict[str, object]) -> None:
    (tmp_path / "a.dcm").write_bytes(dicom(np.arange(144, dtype=np.uint16).reshape(12, 12), **view))
    assert decode(tmp_path / "a.dcm").window is None


def _item(root: Path, image: str) -> Item:
    return Item(id="1", question=Question(text="?", options=("a", "b")), label=0, image=image, root=root)
