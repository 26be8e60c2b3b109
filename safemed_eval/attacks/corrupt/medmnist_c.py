"""MedMNIST-C's corruptions: for each imaging modality its kinds, each with a strength for each of five severities.

Source:
    Di Salvo et al. 2024, "MedMNIST-C: Comprehensive benchmark and improved classifier robustness by simulating
    realistic image corruptions" (arXiv:2406.17536). Data sets, kinds and strengths are those of the file
    `medmnistc/corruptions/registry.py` in github.com/francescodisalvo05/medmnistc-api, commit b6dee0e; the transforms
    are written anew.
    Differs: it corrupts whole data sets; here each item is corrupted as the data set of its modality is. One draw
    serves all severities. Grey levels are not cut to 8 bits, unless the attack is quantized. Lengths in pixels, and the
    block of `pixelate`, are of its images of 224 x 224: they grow and shrink with the canvas's shorter side, so that on
    small canvases weak blurs change nothing. What differs in a single kind is said in `transforms`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal, cast

from safemed_eval.attacks.corrupt.own import is_grey
from safemed_eval.attacks.corrupt.transforms import TRANSFORMS

if TYPE_CHECKING:
    import torch

Kind = Literal[
    "pixelate",
    "jpeg_compression",
    "gaussian_noise",
    "speckle_noise",
    "impulse_noise",
    "shot_noise",
    "defocus_blur",
    "motion_blur",
    "zoom_blur",
    "gaussian_blur",
    "brightness_up",
    "brightness_down",
    "contrast_up",
    "contrast_down",
    "saturate",
    "stain_deposit",
    "bubble",
    "black_corner",
    "characters",
    "gamma_corr_up",
    "gamma_corr_down",
]

Strength = float | tuple[float, ...]
"""The arguments of a transform, see `transforms`."""


@dataclass(frozen=True, kw_only=True)
class DataSet:
    """A data set of MedMNIST, and five strengths for each Kind of its corruptions.

    Args:
        grey: its images are grey: one that is grey here stays grey under corruptions of colours, by its luminance.
    """

    name: str
    grey: bool
    strengths: Mapping[Kind, Sequence[Strength]]


DATA_SETS: dict[str, DataSet] = {
    "CT": DataSet(
        name="organamnist",
        grey=True,
        strengths={
            "pixelate": (0.7, 0.6, 0.5, 0.4, 0.35),
            "jpeg_compression": (50, 30, 15, 10, 7),
            "gaussian_noise": (0.04, 0.08, 0.12, 0.16, 0.2),
            "speckle_noise": (0.05, 0.1, 0.2, 0.3, 0.4),
            "impulse_noise": (0.01, 0.02, 0.03, 0.05, 0.08),
            "shot_noise": (200, 100, 50, 25, 15),
            "gaussian_blur": (11, 13, 15, 17, 21),
            "brightness_up": (1.2, 1.3, 1.4, 1.5, 1.6),
            "brightness_down": (0.8, 0.75, 0.7, 0.65, 0.6),
            "contrast_up": (1.3, 1.4, 1.6, 1.7, 1.8),
            "contrast_down": (0.8, 0.7, 0.6, 0.55, 0.5),
            "gamma_corr_up": (1.3, 1.4, 1.6, 1.8, 2),
            "gamma_corr_down": (0.9, 0.8, 0.7, 0.6, 0.4),
        },
    ),
    "Dermoscopy": DataSet(
        name="dermamnist",
        grey=False,
        strengths={
            "pixelate": (0.7, 0.5, 0.4, 0.3, 0.25),
            "jpeg_compression": (30, 20, 15, 10, 7),
            "gaussian_noise": (0.04, 0.08, 0.12, 0.18, 0.26),
            "speckle_noise": (0.05, 0.15, 0.2, 0.35, 0.45),
            "impulse_noise": (0.01, 0.03, 0.06, 0.09, 0.17),
            "shot_noise": (60, 25, 18, 10, 5),
            "defocus_blur": ((4, 0.1), (5, 0.2), (6, 0.3), (7, 0.4), (8, 0.5)),
            "motion_blur": ((10, 5), (15, 5), (15, 8), (15, 12), (20, 15)),
            "zoom_blur": ((1.11, 0.01), (1.16, 0.01), (1.21, 0.02), (1.26, 0.02), (1.31, 0.03)),
            "brightness_up": (1.1, 1.2, 1.3, 1.4, 1.5),
            "brightness_down": (0.9, 0.8, 0.7, 0.6, 0.5),
            "contrast_up": (1.1, 1.2, 1.3, 1.4, 1.6),
            "contrast_down": (0.8, 0.7, 0.6, 0.5, 0.4),
            "black_corner": (1.1, 1.05, 1, 0.9, 0.95),  # as published: 4 is stronger than 5
            "characters": ((1, 6, 0.14), (2, 7, 0.15), (3, 8, 0.16), (4, 9, 0.17), (6, 10, 0.18)),
        },
    ),
    "Fundus Photography": DataSet(
        name="retinamnist",
        grey=False,
        strengths={
            "pixelate": (0.8, 0.6, 0.5, 0.4, 0.35),
            "jpeg_compression": (30, 25, 20, 10, 5),
            "gaussian_noise": (0.04, 0.08, 0.12, 0.16, 0.2),
            "speckle_noise": (0.1, 0.15, 0.2, 0.25, 0.3),
            "defocus_blur": ((4, 0.1), (5, 0.2), (6, 0.3), (7, 0.4), (8, 0.5)),
            "motion_blur": ((8, 5), (15, 5), (15, 8), (15, 12), (20, 15)),
            "brightness_down": (0.9, 0.8, 0.7, 0.6, 0.5),
            "contrast_down": (0.9, 0.8, 0.7, 0.6, 0.4),
        },
    ),
    "Microscopy": DataSet(
        name="pathmnist",
        grey=False,
        strengths={
            "pixelate": (0.8, 0.6, 0.4, 0.3, 0.25),
            "jpeg_compression": (50, 30, 15, 10, 7),
            "defocus_blur": ((3, 0.1), (4, 0.1), (5, 0.2), (6, 0.2), (7, 0.3)),
            "motion_blur": ((5, 5), (10, 5), (15, 5), (15, 8), (15, 12)),
            "brightness_up": (1.1, 1.15, 1.2, 1.22, 1.25),
            "brightness_down": (0.85, 0.8, 0.75, 0.72, 0.7),
            "contrast_up": (1.1, 1.2, 1.3, 1.4, 1.6),
            "contrast_down": (0.8, 0.7, 0.6, 0.55, 0.5),
            "saturate": (0.05, 0.1, 0.15, 0.2, 0.25),
            "stain_deposit": (1, 2, 3, 4, 5),
            "bubble": ((7, 15), (10, 15), (12, 15), (15, 20), (17, 25)),
        },
    ),
    "OCT": DataSet(
        name="octmnist",
        grey=True,
        strengths={
            "pixelate": (0.3, 0.25, 0.2, 0.15, 0.1),
            "jpeg_compression": (30, 15, 10, 7, 5),
            "speckle_noise": (0.15, 0.3, 0.4, 0.5, 0.6),
            "defocus_blur": ((0.5, 0.6), (1, 0.5), (1.5, 0.1), (2, 0.5), (2.5, 0.1)),
            "motion_blur": ((10, 3), (15, 5), (15, 8), (15, 12), (20, 15)),
            "contrast_down": (0.6, 0.4, 0.3, 0.2, 0.15),
        },
    ),
    "Ultrasound": DataSet(
        name="breastmnist",
        grey=True,
        strengths={
            "pixelate": (0.3, 0.25, 0.2, 0.15, 0.1),
            "jpeg_compression": (50, 30, 15, 10, 7),
            "speckle_noise": (0.1, 0.15, 0.2, 0.25, 0.3),
            "motion_blur": ((5, 5), (9, 7), (9, 10), (13, 10), (17, 12)),
            "brightness_up": (1.4, 1.5, 1.6, 1.8, 2),
            "brightness_down": (0.55, 0.5, 0.45, 0.4, 0.3),
            "contrast_down": (0.9, 0.8, 0.7, 0.6, 0.4),
        },
    ),
    "X-Ray": DataSet(
        name="chestmnist",
        grey=True,
        strengths={
            "pixelate": (0.3, 0.25, 0.2, 0.15, 0.1),
            "jpeg_compression": (50, 30, 15, 10, 7),
            "gaussian_noise": (0.04, 0.08, 0.12, 0.18, 0.26),
            "speckle_noise": (0.05, 0.15, 0.2, 0.35, 0.45),
            "impulse_noise": (0.01, 0.03, 0.06, 0.09, 0.17),
            "shot_noise": (60, 25, 18, 10, 5),
            "gaussian_blur": (3, 5, 7, 9, 11),
            "brightness_up": (1.1, 1.2, 1.3, 1.4, 1.5),
            "brightness_down": (0.9, 0.8, 0.7, 0.6, 0.5),
            "contrast_up": (1.1, 1.2, 1.3, 1.4, 1.6),
            "contrast_down": (0.9, 0.8, 0.7, 0.6, 0.4),
            "gamma_corr_up": (1.1, 1.2, 1.3, 1.4, 1.6),
            "gamma_corr_down": (0.9, 0.8, 0.7, 0.6, 0.4),
        },
    ),
}
"""The data set that stands for each modality: where MedMNIST-C has several, the one of most images. TissueMNIST is left
out of Microscopy, since its images are fluorescence in grey; those of PathMNIST and BloodMNIST are stained, as the
slides of OmniMedVQA are. OrganAMNIST, OrganCMNIST and OrganSMNIST have the same strengths. There is none of MRI."""


def unavailable(kind: str, modality: str | None) -> str | None:
    """Say why there is no such corruption for images of this modality; None: there is one."""
    if modality is None:
        return "MedMNIST-C's corruptions depend on the modality, which is not known"
    if modality not in DATA_SETS:
        return f"MedMNIST-C has no data set of {modality}"
    known = DATA_SETS[modality]
    return None if kind in known.strengths else f"MedMNIST-C has no {kind} for {modality} ({known.name})"


def corrupted(
    image: torch.Tensor, kind: str, severity: int, rng: torch.Generator, *, modality: str | None
) -> torch.Tensor:
    """Corrupt a (3, H, W) float32 image in [0, 1] of this modality; the result may leave [0, 1].

    Raises:
        ValueError: the corruption is unavailable.
    """
    from torchvision.transforms.v2 import functional as vision

    why = unavailable(kind, modality)
    if modality is None or why:
        raise ValueError(why)
    known = DATA_SETS[modality]
    strength = known.strengths[cast("Kind", kind)][severity - 1]
    changed = TRANSFORMS[kind](image, rng, *(strength if isinstance(strength, tuple) else (strength,)))
    if not (known.grey and is_grey(image)):
        return changed
    grey: torch.Tensor = vision.rgb_to_grayscale(changed.clamp(0, 1), num_output_channels=3)
    return grey
