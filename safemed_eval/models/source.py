"""Where a model comes from, known without torch: the base class of every kind of model."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from safemed_eval.errors import SpecError
from safemed_eval.models.checkpoints.prompts import CLOCK, Asking, Template, default_template
from safemed_eval.models.files.contents import Allowed, Json
from safemed_eval.models.files.denoiser_source import DenoiserSource
from safemed_eval.models.files.notes import Training, training_of

if TYPE_CHECKING:
    import torch


@dataclass(frozen=True, kw_only=True)
class Source(ABC):
    """A model that is found, but not loaded yet. Each kind of model is a subclass.

    A plug-in of group `safemed_eval.models` is such a subclass with a class method `resolve(name, allowed)`; it serves
    the names that begin with the plug-in's own name and a colon.

    Args:
        name: as the user wrote it, for messages and run folders.
        denoiser: transforms every image before the model gets it.
    """

    name: str
    denoiser: DenoiserSource | None = None

    takes_prompts: ClassVar[bool] = False
    """True if this tool chooses the words that the model is asked in: readout and template have an effect."""
    takes_loading_options: ClassVar[bool] = False
    """True if dtype, attention and device map have an effect."""
    disregards: ClassVar[str] = "this model"
    """What an option without effect is told of, as the end of "--dtype has no effect on ..."."""
    trainable: ClassVar[bool] = False
    has_official_path: ClassVar[bool] = False
    """True if there is an untouched 8-bit path beside the float path."""
    can_be_sent: ClassVar[bool] = True
    """True if it can be loaded in another process from its name and files."""

    @classmethod
    def resolve(cls, name: str, allowed: Allowed) -> Source:
        """Find the model that `name` stands for.

        Raises:
            SpecError: the name is malformed. CheckpointError: files are missing or damaged, or not allowed.
        """
        raise SpecError(f"--model {name}: cannot be found by a name")

    @property
    @abstractmethod
    def fingerprint(self) -> Json:
        """JSON values that change when the model changes: hashes of weights and settings where there are any.

        Two models with equal "weights_sha256" count as the same weights.
        """

    @abstractmethod
    def load(
        self, device: torch.device, *, dtype: str, attn: str | None, device_map: str | None, asking: Asking
    ) -> object:
        """Load the model and return an object with the methods that `scorer.Scorer` describes.

        Raises:
            CheckpointError: it cannot be loaded or asked.
        """

    def load_to_train(
        self, device: torch.device, *, dtype: str, attn: str | None, asking: Asking
    ) -> tuple[Any, object]:
        """Load the model for a trainer; see `models.load_to_train`."""
        raise SpecError(f"--model {self.name}: only a transformers checkpoint can be trained")

    @property
    def identity(self) -> Json:
        """The fingerprint of the model and of the denoiser before it; reads all files once."""
        return self.fingerprint | ({"denoiser": self.denoiser.identity} if self.denoiser else {})

    def asked(self, asking: Asking | None = None, *, to_train: bool = False) -> Asking:
        """Complete how the model is asked.

        Args:
            asking: the caller's choice. A template in it wins; without one, a checkpoint is asked as it was trained,
                or with the default template if it does not say how that was.
            to_train: the model is going to be trained to write its answer.
        Raises:
            CheckpointError: the note on how it was trained cannot be read.
            SpecError: the readout does not fit the template.
        """
        asking = asking or Asking()
        default = default_template("generate" if to_train else asking.readout)
        clock = CLOCK.isoformat() if self.asks_for_the_date else None
        try:
            return replace(asking, template=asking.template or self.template or default, clock=clock)
        except ValueError as error:
            raise SpecError(f"--readout {asking.readout}: {error}") from None

    @property
    def template(self) -> Template | None:
        """The template that the model was trained with; None if that is not known."""
        return None

    @property
    def asks_for_the_date(self) -> bool:
        """True if the model's chat template reads the clock."""
        return False

    @property
    def device(self) -> str | None:
        """The device that the model is on already; None if it is loaded onto any."""
        return None

    @property
    def is_adapter(self) -> bool:
        """True for an adapter over the weights of another checkpoint."""
        return False

    @property
    def commits(self) -> dict[str, str]:
        """Resolved commits by name, where files come from the hub."""
        return {}

    @property
    def reference(self) -> tuple[str, str | None]:
        """The name by which an adapter refers to this model as its base, and a commit of the hub."""
        return self.name, None

    @property
    def trained(self) -> Json | None:
        """How a model that was trained here was made; None for any other."""
        return None

    @property
    def parts(self) -> list[tuple[str, Path | None]]:
        """Name and folder of everything that may have been trained here."""
        return [(self.denoiser.name, self.denoiser.path)] if self.denoiser else []

    @property
    def trainings(self) -> list[Training]:
        """What the model, its base and its denoiser were trained on here.

        Raises:
            CheckpointError: a note of how one was made cannot be read.
        """
        return [training for part in self.parts if (training := training_of(*part)) is not None]
