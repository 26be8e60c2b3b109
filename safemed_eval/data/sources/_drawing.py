"""Drawing phantoms: small pictures that look a little like eight imaging modalities, from a case and a generator.

Coordinates run from -1 to 1, x to the right and y down; grey values from 0 to 1. All arithmetic is in float64 and all
randomness comes from uniform draws, so that the same seed gives the same 8-bit pixels on every machine.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Field = npt.NDArray[np.float64]
Rng = np.random.Generator

SIDE = 64
_AXIS: Field = (np.arange(SIDE, dtype=np.float64) - (SIDE - 1) / 2) / (SIDE / 2)
X: Field = np.tile(_AXIS, (SIDE, 1))
Y: Field = X.T


@dataclass(frozen=True, kw_only=True)
class Case:
    """The contents of a picture: indices into the tables of `phantom`."""

    modality: str
    anatomy: int
    finding: int
    """0: none; 1: solid, brighter or darker; 2: a ring; 3: a patch of texture on a faint shade."""
    grade: int
    """Size of the lesion, 0 to 3."""
    place: int
    """Quadrant of a single lesion; where lesions are counted, their number less one."""
    counted: bool


def draw(case: Case, rng: Rng) -> npt.NDArray[np.uint8]:
    """Draw (SIDE, SIDE, 3) uint8. Position, size, brightness, background and noise vary with the generator."""
    ground, depth = _GROUNDS[case.modality](case.anatomy, rng)
    picture = ground * _between(rng, 0.93, 1.07)
    if case.finding:
        picture = picture + _lesions(case, depth, rng)
    return (picture.clip(0, 1) * 255 + 0.5).astype(np.uint8)


# ---------------------------------------------------------------- primitives


def _between(rng: Rng, low: float, high: float) -> float:
    return low + (high - low) * float(rng.random())


def _step(distance: Field) -> Field:
    """0 to 1 as a distance, in pixels, goes through 0."""
    return 1 / (1 + np.exp(-np.clip(1.4 * distance, -40, 40)))


def _disc(x: float, y: float, a: float, b: float | None = None, turn: float = 0.0) -> Field:
    """A soft ellipse with half axes a and b."""
    b = a if b is None else b
    u, v = X - x, Y - y
    u, v = np.cos(turn) * u + np.sin(turn) * v, np.cos(turn) * v - np.sin(turn) * u
    return _step((1 - np.sqrt((u / a) ** 2 + (v / b) ** 2 + 1e-12)) * min(a, b) * SIDE / 2)


def _ring(x: float, y: float, a: float, b: float, width: float, turn: float = 0.0) -> Field:
    return _disc(x, y, a, b, turn) - _disc(x, y, max(a - width, 0.02), max(b - width, 0.02), turn)


def _line(offset: Field, width: float) -> Field:
    """A soft line where the offset from it is 0."""
    return _step((width - np.abs(offset)) * SIDE / 2)


def _waves(rng: Rng, frequency: float) -> Field:
    """A smooth random field of standard deviation about 1."""
    total = np.zeros_like(X)
    for _ in range(4):
        turn, phase = _between(rng, 0, 2 * np.pi), _between(rng, 0, 2 * np.pi)
        total += np.sin(frequency * (np.cos(turn) * X + np.sin(turn) * Y) + phase)
    return total / math.sqrt(2)


def _grain(rng: Rng, strength: float) -> Field:
    """Noise per pixel, nearly normal: a sum of four uniform draws."""
    total: Field = rng.random((4, SIDE, SIDE)).sum(0)
    return strength * math.sqrt(3) * (total - 2)


def _speckle(rng: Rng, strength: float) -> Field:
    """Multiplicative noise around 1, smeared sideways."""
    field: Field = np.sqrt(-np.log1p(-rng.random((SIDE, SIDE + 1))))
    return 1 + strength * ((field[:, 1:] + field[:, :-1]) / 2 - 0.886)


def _grey(values: Field, tint: tuple[float, float, float] = (1.0, 1.0, 1.0)) -> Field:
    return values[..., None] * np.array(tint, dtype=np.float64)


# ------------------------------------------------------------------- grounds
# Each gives the picture without a lesion, (SIDE, SIDE, 3), and the depth at which a lesion lies in each column, or
# None where it lies in a quadrant.

Ground = tuple[Field, Field | None]


def _ct(anatomy: int, rng: Rng) -> Ground:
    x, y, s = _between(rng, -0.05, 0.05), _between(rng, -0.05, 0.05), _between(rng, 0.94, 1.06)
    if anatomy == 0:  # brain: skull, tissue, ventricles
        v = 0.9 * _ring(x, y, 0.74 * s, 0.9 * s, 0.1) + 0.4 * _disc(x, y, 0.64 * s, 0.8 * s)
        v -= 0.24 * (_disc(x - 0.13, y - 0.05, 0.07, 0.27, 0.25) + _disc(x + 0.13, y - 0.05, 0.07, 0.27, -0.25))
    else:  # a trunk with its spine
        v = 0.42 * _disc(x, y, 0.93 * s, 0.74 * s) + 0.45 * _disc(x, y + 0.5, 0.12)
        if anatomy == 1:  # chest: lungs, heart
            v -= 0.3 * (_disc(x - 0.44, y - 0.05, 0.3 * s, 0.46 * s) + _disc(x + 0.44, y - 0.05, 0.3 * s, 0.46 * s))
            v += 0.2 * _disc(x + 0.06, y - 0.1, 0.15, 0.2)
        elif anatomy == 2:  # abdomen: liver, spleen, kidneys
            v += 0.15 * _disc(x - 0.38, y - 0.12, 0.42 * s) + 0.12 * _disc(x + 0.5, y - 0.2, 0.2, 0.27)
            v += 0.14 * (_disc(x - 0.35, y + 0.4, 0.12, 0.15) + _disc(x + 0.35, y + 0.4, 0.12, 0.15))
        else:  # pelvis: hip bones
            v += 0.42 * _ring(x - 0.55, y + 0.06, 0.24, 0.42, 0.1, 0.4)
            v += 0.42 * _ring(x + 0.55, y + 0.06, 0.24, 0.42, 0.1, -0.4)
    return _grey(v + 0.03 + 0.02 * _waves(rng, 8) + _grain(rng, 0.02)), None


def _mri(anatomy: int, rng: Rng) -> Ground:
    x, y, s = _between(rng, -0.05, 0.05), _between(rng, -0.05, 0.05), _between(rng, 0.94, 1.06)
    if anatomy == 0:  # brain: scalp, folded cortex
        turn, far = np.arctan2(Y - y, X - x), np.hypot(X - x, Y - y)
        v = 0.65 * _ring(x, y, 0.82 * s, 0.93 * s, 0.06) + 0.48 * _disc(x, y, 0.68 * s, 0.8 * s)
        v += 0.1 * np.sin(11 * turn + 8 * far + _between(rng, 0, 6)) * _disc(x, y, 0.62, 0.74)
    elif anatomy == 1:  # spine: vertebrae and cord
        bend = x + 0.12 * np.sin(2.2 * Y + _between(rng, -0.3, 0.3))
        v = 0.32 * _disc(x, y, 0.85, 1.1) + 0.38 * _line(X - bend, 0.18) * (np.sin(11 * (Y - y)) > -0.55)
        v += 0.28 * _line(X - bend - 0.36, 0.07)
    elif anatomy == 2:  # knee: two bones
        v = 0.32 * _disc(x, y, 0.75, 1.2) + 0.28 * _disc(x + 0.62, y - 0.05, 0.1, 0.26)
        v += 0.46 * _step((y - 0.06 - Y) * SIDE / 2) * _disc(x, y - 0.7, 0.5 * s, 0.72)
        v += 0.46 * _step((Y - y - 0.06) * SIDE / 2) * _disc(x, y + 0.75, 0.48 * s, 0.72)
    else:  # heart: muscle, two chambers
        v = 0.3 * _disc(x, y, 0.95, 0.9) + 0.55 * _ring(x + 0.12, y, 0.52 * s, 0.52 * s, 0.16)
        v += 0.34 * _disc(x + 0.12, y, 0.3) + 0.28 * _disc(x - 0.5, y + 0.02, 0.2, 0.42)
    return _grey(v * (1 + 0.1 * _waves(rng, 2.5)) + 0.04 + _grain(rng, 0.022)), None


def _xray(anatomy: int, rng: Rng) -> Ground:
    x, y, s = _between(rng, -0.05, 0.05), _between(rng, -0.05, 0.05), _between(rng, 0.94, 1.06)
    if anatomy == 0:  # chest: lungs, ribs, spine, heart
        v = 0.64 - 0.3 * (_disc(x - 0.42, y, 0.34 * s, 0.74 * s) + _disc(x + 0.42, y, 0.34 * s, 0.74 * s))
        v += 0.08 * _step(6 * np.sin(13 * (Y + 0.3 * X**2) + _between(rng, 0, 1)))
        v += 0.18 * _line(X - x, 0.12) + 0.16 * _disc(x + 0.12, y + 0.3, 0.26, 0.28)
    elif anatomy == 1:  # hand: palm, five fingers
        v = 0.26 + 0.3 * _disc(x, y + 0.6, 0.5 * s, 0.4)
        for turn, length in ((-0.75, 0.55), (-0.3, 0.95), (0.0, 1.0), (0.3, 0.95), (0.6, 0.8)):
            tip = (x + np.sin(turn) * length * 0.75, y + 0.45 - np.cos(turn) * length * 0.75)
            v = v + 0.36 * _disc(*tip, 0.075, 0.42 * length, turn)
    elif anatomy == 2:  # skull: vault, orbits, jaw
        v = 0.12 + 0.4 * _disc(x, y - 0.08, 0.78 * s) + 0.35 * _ring(x, y - 0.08, 0.8 * s, 0.8 * s, 0.09)
        v -= 0.28 * (_disc(x - 0.28, y + 0.18, 0.15, 0.12) + _disc(x + 0.28, y + 0.18, 0.15, 0.12))
        v += 0.22 * _disc(x, y + 0.72, 0.36, 0.22)
    else:  # femur: shaft, marrow, head
        v = 0.28 + 0.1 * _line(X - x, 0.62) + 0.42 * _line(X - x, 0.26 * s) - 0.14 * _line(X - x, 0.12)
        v += 0.35 * _disc(x - 0.2, y - 0.82, 0.32, 0.26)
    return _grey(v + 0.03 * _waves(rng, 4) + _grain(rng, 0.022), (0.97, 1.0, 1.03)), None


def _ultrasound(anatomy: int, rng: Rng) -> Ground:
    x, y = _between(rng, -0.05, 0.05), _between(rng, -0.05, 0.05)
    turn, far = np.arctan2(X, Y + 1.15), np.hypot(X, Y + 1.15)
    fan = _step((0.62 - np.abs(turn)) * 30) * _step((far - 0.3) * 30) * _step((2.02 - far) * 30)
    v = np.full_like(X, 0.36)
    if anatomy == 0:  # fetus: head and body
        v += 0.3 * _ring(x - 0.25, y - 0.02, 0.33, 0.3, 0.07) - 0.1 * _disc(x - 0.25, y - 0.02, 0.25, 0.22)
        v += 0.28 * _disc(x + 0.22, y + 0.25, 0.34, 0.2, 0.5)
    elif anatomy == 1:  # kidney: dark rind, bright centre
        v += 0.34 * _disc(x, y + 0.12, 0.34, 0.12) - 0.14 * _disc(x, y + 0.12, 0.62, 0.36)
    elif anatomy == 2:  # heart: four chambers
        for u, w in ((-0.2, -0.14), (0.2, -0.14), (-0.22, 0.38), (0.22, 0.38)):
            v -= 0.16 * _disc(x + u, y + w, 0.16, 0.22)
        v += 0.1 * _line(X - x, 0.04)
    else:  # thyroid: two lobes, windpipe
        v += 0.26 * (_disc(x - 0.33, y, 0.26, 0.2, 0.3) + _disc(x + 0.33, y, 0.26, 0.2, -0.3))
        v -= 0.2 * _disc(x, y + 0.08, 0.11)
    return _grey(v * fan * _speckle(rng, 0.3) * (1.05 - 0.15 * Y)), None


def _dermoscopy(anatomy: int, rng: Rng) -> Ground:
    tone = _between(rng, -0.06, 0.06)
    skin = np.ones((SIDE, SIDE, 1)) * np.array([0.84 + tone, 0.64 + 0.8 * tone, 0.53 + 0.6 * tone])
    if anatomy == 1:  # scalp: hairs
        for _ in range(6):
            turn, offset = _between(rng, -0.6, 0.6), _between(rng, -1, 1)
            skin = skin * (1 - 0.55 * _line(X * np.cos(turn) + Y * np.sin(turn) * 0.6 - offset, 0.028)[..., None])
    elif anatomy == 2:  # palm: ridges
        turn = _between(rng, -0.5, 0.5)
        ridges = np.sin(24 * (np.sin(turn) * X + np.cos(turn) * Y) + _between(rng, 0, 6))
        skin = skin + 0.07 * ridges[..., None]
    elif anatomy == 3:  # face: redder, pores
        pores = np.sin(16 * X + _between(rng, 0, 6)) * np.sin(16 * Y + _between(rng, 0, 6))
        skin = skin + np.array([0.02, -0.07, -0.06]) - 0.2 * np.maximum(pores - 0.45, 0)[..., None]
    return skin + (0.02 * _waves(rng, 5) + _grain(rng, 0.018))[..., None], None


def _fundus(anatomy: int, rng: Rng) -> Ground:
    x, y, s = _between(rng, -0.05, 0.05), _between(rng, -0.05, 0.05), _between(rng, 0.94, 1.06)
    shade = 0.04 * _waves(rng, 3)
    eye = np.stack([0.74 + shade, 0.34 + shade, 0.14 + 0.5 * shade], -1)
    vessels = np.zeros_like(X)
    if anatomy == 3:  # periphery: vessels, no disc
        for _ in range(4):
            offset, slope = _between(rng, -0.9, 0.9), _between(rng, -0.8, 0.8)
            vessels = np.maximum(vessels, _line(Y - offset - slope * X + 0.15 * np.sin(4 * X + offset), 0.024))
        eye = eye * (1 - 0.45 * vessels[..., None])
    else:  # the optic disc on the left, on the right, or in the middle
        centre = x + (-0.5, 0.5, 0.0)[anatomy]
        for slope in (0.75, -0.75, 0.3, -0.3):
            course = y + slope * _between(rng, 0.9, 1.1) * np.sqrt(np.abs(X - centre) + 1e-3)
            vessels = np.maximum(vessels, _line(Y - course, 0.028))
        if anatomy != 2:
            eye = eye - 0.16 * np.exp(-((X + centre / 2) ** 2 + (Y - y) ** 2) / 0.04)[..., None]
        eye = eye * (1 - 0.45 * vessels[..., None])
        eye = eye + _disc(centre, y, 0.17 * s, 0.19 * s)[..., None] * (np.array([0.97, 0.8, 0.5]) - eye)
    return (eye + _grain(rng, 0.016)[..., None]) * _disc(0, 0, 0.95)[..., None] + 0.02, None


def _oct(anatomy: int, rng: Rng) -> Ground:
    x, sway = _between(rng, -0.08, 0.08), 0.03 * np.sin(3 * X + _between(rng, 0, 6))
    v = np.full_like(X, 0.06)
    if anatomy == 3:  # cornea: an arc of three layers
        top = -0.55 + 0.75 * (X - x) ** 2 + 0.3 * sway
        for depth, bright, width in ((0.0, 0.5, 0.035), (0.2, 0.34, 0.19), (0.42, 0.5, 0.03)):
            v += bright * _line(Y - top - depth, width)
        middle = top + 0.21
    else:  # retina: macula with its pit, optic nerve head with its cup, or flat periphery
        bottom = 0.42 + 0.5 * sway
        if anatomy == 0:
            top = -0.35 + sway + 0.3 * np.exp(-(((X - x) / 0.26) ** 2))
        elif anatomy == 1:
            cup = np.exp(-(((X - x) / 0.2) ** 4))
            top, bottom = -0.35 + sway + 0.75 * cup, bottom + 0.35 * cup
        else:
            top = -0.3 + sway + _between(rng, -0.12, 0.12) * X
        layers = ((0.05, 0.5, 0.05), (0.3, 0.3, 0.09), (0.55, 0.18, 0.08), (0.75, 0.38, 0.05), (1.0, 0.75, 0.05))
        for share, bright, width in (*layers, (1.2, 0.3, 0.12)):
            v += bright * _line(Y - top - share * (bottom - top), width)
        middle = top + 0.42 * (bottom - top)
    return _grey(v * _speckle(rng, 0.25) + _grain(rng, 0.012)), middle[0].clip(-0.6, 0.6)


def _microscopy(anatomy: int, rng: Rng) -> Ground:
    def stain(picture: Field, mask: Field, color: tuple[float, float, float]) -> Field:
        return picture - mask[..., None] * np.array(color, dtype=np.float64)

    grounds = ((0.93, 0.88, 0.86), (0.86, 0.64, 0.75), (0.94, 0.79, 0.86), (0.95, 0.87, 0.9))
    tissue = np.ones((SIDE, SIDE, 1)) * np.array(grounds[anatomy])
    if anatomy == 0:  # blood: red cells with a pale centre
        for number in range(9):
            x = -0.66 + 0.66 * (number % 3) + _between(rng, -0.1, 0.1)
            y = -0.66 + 0.66 * (number // 3) + _between(rng, -0.1, 0.1)
            tissue = stain(tissue, _disc(x, y, 0.24), (0.06, 0.34, 0.3))
            tissue = stain(tissue, _disc(x, y, 0.09), (-0.03, -0.14, -0.12))
    elif anatomy == 1:  # liver: plates of cells with nuclei
        turns = (0.0, 2.0944, 4.18879)
        comb = sum(np.cos(9 * (np.cos(t) * X + np.sin(t) * Y) + _between(rng, 0, 6)) for t in turns)
        tissue = stain(tissue, np.clip(-np.asarray(comb), 0, 2), (0.1, 0.1, 0.1))
        tissue = stain(tissue, _step(4 * (np.asarray(comb) - 2)), (0.42, 0.4, 0.18))
    elif anatomy == 2:  # colon: glands, rings of cells
        for number in range(4):
            x = (-0.5, 0.5)[number % 2] + _between(rng, -0.08, 0.08)
            y = (-0.5, 0.5)[number // 2] + _between(rng, -0.08, 0.08)
            beads = 0.32 + 0.18 * np.sin(10 * np.arctan2(Y - y, X - x))
            tissue = stain(tissue, _ring(x, y, 0.4, 0.4, 0.14) * beads, (0.8, 1.1, 0.45))
    else:  # bone marrow: scattered round cells with large nuclei
        for _ in range(7):
            x, y, size = _between(rng, -0.85, 0.85), _between(rng, -0.85, 0.85), _between(rng, 0.13, 0.2)
            tissue = stain(tissue, _disc(x, y, 1.25 * size), (0.1, 0.16, 0.06))
            tissue = stain(tissue, _disc(x, y, size, 0.8 * size, _between(rng, 0, 3)), (0.33, 0.38, 0.12))
    return tissue + (0.015 * _waves(rng, 5) + _grain(rng, 0.018))[..., None], None


_GROUNDS: dict[str, Callable[[int, Rng], Ground]] = {
    "CT": _ct,
    "Dermoscopy": _dermoscopy,
    "Fundus Photography": _fundus,
    "MRI": _mri,
    "Microscopy": _microscopy,
    "OCT": _oct,
    "Ultrasound": _ultrasound,
    "X-Ray": _xray,
}

# ------------------------------------------------------------------- lesions

_SIZES = (0.115, 0.17, 0.24, 0.33)
_PLACES = ((-0.37, -0.37), (0.37, -0.37), (-0.37, 0.37), (0.37, 0.37))
_OTHER_PLACES = {
    "Ultrasound": ((-0.26, -0.1), (0.26, -0.1), (-0.36, 0.48), (0.36, 0.48)),
    "OCT": ((-0.66, 0.0), (-0.22, 0.0), (0.22, 0.0), (0.66, 0.0)),
}
_COLORS: dict[str, tuple[tuple[float, float, float], ...]] = {
    "CT": ((0.34,) * 3, (0.34,) * 3, (-0.16,) * 3),
    "MRI": ((0.36,) * 3, (0.36,) * 3, (-0.18,) * 3),
    "X-Ray": ((0.3,) * 3, (0.32,) * 3, (-0.18,) * 3),
    "Ultrasound": ((0.42,) * 3, (0.44,) * 3, (-0.2,) * 3),
    "Dermoscopy": ((-0.42, -0.38, -0.3), (-0.12, -0.34, -0.28), (0.08, 0.16, 0.19)),
    "Fundus Photography": ((0.22, 0.42, 0.18), (0.22, 0.38, 0.25), (-0.26, -0.18, -0.06)),
    "OCT": ((0.5,) * 3, (0.46,) * 3, (-0.26,) * 3),
    "Microscopy": ((-0.45, -0.5, -0.15), (-0.35, -0.5, -0.1), (0.08, 0.2, 0.14)),
}
"""Brightness of a solid lesion, of a ring, and of a patch of texture, whose shade is about half as strong."""
_WEAVE = 0.06
"""Amplitude of a patch's own texture, and four times that of the faint weave that every lesion carries by its kind: a
fragile feature, which an ordinarily trained model is free to lean on."""
_WEAVES = (np.sin(np.pi * SIDE * X / 2 * 0.5), np.sin(np.pi * SIDE * Y / 2 * 0.5), np.sin(np.pi * SIDE * (X + Y) / 4))


def _lesions(case: Case, depth: Field | None, rng: Rng) -> Field:
    """The contribution of the lesions to the picture."""
    places = np.array(_OTHER_PLACES.get(case.modality, _PLACES))
    chosen = np.argsort(rng.random(4))[: case.place + 1] if case.counted else [case.place]
    size = _SIZES[case.grade] * _between(rng, 0.96, 1.04) * (1 if depth is None else 0.62)
    mask = np.zeros_like(X)
    for x, y in places[chosen] + 0.12 * (rng.random((len(chosen), 2)) - 0.5):
        if depth is not None:
            y = float(np.interp(x, _AXIS, depth))
        stretch, width = _between(rng, 0.88, 1.13), max(0.34 * size, 0.055)
        a, b = size * stretch, size / stretch
        mask = np.maximum(mask, _ring(x, y, a, b, width) if case.finding == 2 else _disc(x, y, a, b))
    color = np.array(_COLORS[case.modality][case.finding - 1]) * _between(rng, 0.88, 1.12)
    weave = _WEAVES[case.finding - 1] * (_WEAVE if case.finding == 3 else _WEAVE / 4)
    return mask[..., None] * (color + weave[..., None])
