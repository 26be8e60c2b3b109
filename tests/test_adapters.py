"""Adapters: on which layers, over which base, and merged into it; and parts of a network that are not trained."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from families import FAMILIES
from safetensors.torch import load_file, save_file
from typer.testing import CliRunner

import safemed_eval as se
from safemed_eval import data, models
from safemed_eval.cli import app
from safemed_eval.core import TRAINED_ON, Question
from safemed_eval.data.audit.training_overlap import read_seen
from safemed_eval.errors import CheckpointError, SpecError, UserError
from safemed_eval.models.checkpoints.parts import linear_layers, part_of
from safemed_eval.train import make

pytest.importorskip("peft", reason="peft is in the train extra")

FAMILY = "qwen2_5_vl"
PHANTOM = "phantom:split=train,images=8"


def command(*arguments: str) -> Any:
    return CliRunner().invoke(app, arguments)


def trained(method: str, start: Path, out: Path, **options: Any) -> Path:
    """Two steps, of which the second changes weights."""
    settings = {"steps": 2, "batch_size": 4, "learning_rate": 1e-2} | options
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(make, "figure", lambda folder: None)
        return se.train(method, models.find_model(str(start), device="cpu"), PHANTOM, out=out, **settings)  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def place(checkpoint: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that was trained here, `base`, and an adapter that was trained over it, `adapter`."""
    folder = tmp_path_factory.mktemp("adapters")
    trained("sft", checkpoint(FAMILY), folder / "base", steps=1)
    trained("sft", folder / "base", folder / "adapter", lora="r=2,targets=language")
    return folder


@pytest.fixture
def adapter(place: Path, tmp_path: Path) -> Path:
    """A copy of both; the adapter still names the first place of its base."""
    for name in ("base", "adapter"):
        shutil.copytree(place / name, tmp_path / name)
    return tmp_path / "adapter"


def answers(model: models.Model, questions: list[Question], canvases: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model.waist.scorer.scores(canvases, questions)


# ------------------------------------------------------------------------------------------------------ parts, layers


@pytest.mark.parametrize("family", FAMILIES)
def test_each_family_has_the_three_parts(family: str, checkpoint: Callable[[str], Path]) -> None:
    network = models.load(models.resolve(str(checkpoint(family)))).scorer.model
    parts = part_of(network)
    assert {*parts.values()} == {"vision", "language", "projector"}
    assert parts[next(name for name in parts if "att" in name and "vi" in name)] == "vision"
    owned = {id(weight) for name in parts for weight in network.get_submodule(name).parameters(recurse=False)}
    assert owned == {id(weight) for weight in network.parameters()}
    head, modules = network.get_output_embeddings(), network.named_modules()
    linear = {name for name, module in modules if isinstance(module, torch.nn.Linear) and module is not head}
    assert {*linear_layers(network, "all")} == linear
    for part in ("vision", "language", "projector"):
        wanted = {name for name in linear if parts[name] == part}
        if wanted:
            assert {*linear_layers(network, part)} == wanted
        else:
            assert (family, part) == ("gemma3", "projector"), "a parameter, and no linear layer"


@pytest.mark.parametrize(
    ("targets", "within"),
    [
        ("vision", r"model.visual.blocks."),
        ("language", r"model.language_model."),
        ("projector", r"model.visual.merger."),
        (r".*layers\.1\..*(q|v)_proj", r"model.language_model.layers.1.self_attn."),
    ],
)
def test_an_adapter_is_put_where_it_is_asked_for(
    targets: str, within: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    out = trained("sft", checkpoint(FAMILY), tmp_path / "new", lora=f"r=2,targets={targets}", steps=1)
    names = [name.removeprefix("base_model.model.") for name in load_file(out / "adapter_model.safetensors")]
    assert names and all(name.startswith(within) for name in names)
    assert json.loads((out / "training/run.json").read_text())["spec"]["recipe"]["lora"]["targets"] == targets


@pytest.mark.parametrize(
    ("targets", "said"),
    [("nothing", "matches no linear layer; their names are like model."), ("lm_head", "matches the output head")],
)
def test_layers_that_cannot_be_adapted_are_refused(
    targets: str, said: str, checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    with pytest.raises(SpecError, match=said):
        trained("sft", checkpoint(FAMILY), tmp_path / "new", lora=f"r=2,targets={targets}")


@pytest.mark.parametrize("frozen", [("vision",), ("language",), ("projector", "vision")])
def test_frozen_parts_keep_their_weights_and_others_do_not(
    frozen: tuple[str, ...], checkpoint: Callable[[str], Path], tmp_path: Path
) -> None:
    out = trained("at-sft", checkpoint(FAMILY), tmp_path / "new", freeze=frozen, attack_steps=1)
    old, new = (models.load(models.resolve(str(folder))).scorer.model for folder in (checkpoint(FAMILY), out))
    after = dict(new.named_parameters())
    changed = {name for name, weight in old.named_parameters() if not torch.equal(weight, after[name])}
    parts = part_of(old)
    assert {parts[name.rpartition(".")[0]] for name in changed} == {"vision", "language", "projector"} - {*frozen}
    assert json.loads((out / "training/run.json").read_text())["spec"]["recipe"]["freeze"] == [*frozen]


# --------------------------------------------------------------------------------------------------------------- base


@pytest.mark.slow
def test_the_base_of_an_adapter_is_found_where_it_has_moved(adapter: Path, place: Path) -> None:
    settings = json.loads((adapter / "adapter_config.json").read_text())
    assert settings["base_model_name_or_path"] == str(place / "base")
    settings["base_model_name_or_path"] = str(place / "gone")
    (adapter / "adapter_config.json").write_text(json.dumps(settings))
    with pytest.raises(CheckpointError, match=r"its base .*gone is not there; name its new place with --base"):
        models.find_model(str(adapter))
    moved = models.find_model(str(adapter), base=str(adapter.parent / "base"))
    assert moved.source.identity["base"] == models.find_model(str(place / "adapter")).source.identity["base"]
    checked = command("models", "check", str(adapter), "--base", str(adapter.parent / "base"), "--canvas", "56x56")
    assert checked.exit_code == 0, checked.output
    again = command(
        *("train", "sft", "--model", str(adapter), "--base", str(adapter.parent / "base"), "--data", PHANTOM),
        *("--steps", "1", "--batch-size", "4", "--out", str(adapter.parent / "more"), "--device", "cpu"),
    )
    assert again.exit_code == 0, (again.output, again.exception)
    named = json.loads((adapter.parent / "more/adapter_config.json").read_text())["base_model_name_or_path"]
    assert named == str(adapter.parent / "base")


def test_a_base_with_other_weights_is_refused_at_its_new_place_too(adapter: Path) -> None:
    base = adapter.parent / "base"
    weights = load_file(base / "model.safetensors")
    save_file(
        {**weights, "lm_head.weight": weights["lm_head.weight"] + 1}, base / "model.safetensors", {"format": "pt"}
    )
    for arguments in (
        ("evaluate", "--model", str(adapter), "--base", str(base), "--data", "phantom:images=4"),
        ("certify", "--model", str(adapter), "--base", str(base), "--data", "phantom:images=4", "--sigma", "0.1"),
        ("models", "merge", str(adapter), "--base", str(base), "--out", str(adapter.parent / "merged")),
        ("train", "sft", "--model", str(adapter), "--base", str(base), "--data", PHANTOM, "--out", str(base / "new")),
    ):
        error = command(*arguments).exception
        assert isinstance(error, UserError) and "was trained over other weights than" in str(error), arguments


def test_a_base_without_an_adapter_is_refused(place: Path) -> None:
    with pytest.raises(SpecError, match=r"--base x: --model .*base is not an adapter, and has no base"):
        models.find_model(str(place / "base"), base="x")
    with pytest.raises(SpecError, match="--base has no effect on"):
        models.find_model("python:a:b", base="x")
    with pytest.raises(SpecError, match="--model x: no such folder"):
        models.find_model(str(place / "adapter"), base="x")


# -------------------------------------------------------------------------------------------------------------- merge


def test_a_merged_adapter_answers_as_the_adapter_over_its_base(
    adapter: Path, questions: list[Question], canvases: torch.Tensor
) -> None:
    merged = adapter.parent / "merged"
    done = command("models", "merge", str(adapter), "--out", str(merged))
    assert done.exit_code == 0, (done.output, done.exception)
    assert not [*merged.glob("adapter*")] and (merged / "model.safetensors").is_file()
    of_adapter, of_merged, of_base = (
        answers(models.load_model(str(folder), device="cpu"), questions, canvases)
        for folder in (adapter, merged, adapter.parent / "base")
    )
    torch.testing.assert_close(of_merged, of_adapter, atol=1e-5, rtol=1e-5)
    assert float((of_adapter - of_base).abs().max()) > 1e-3, "the adapter matters"


def test_a_merged_adapter_keeps_the_notes_of_its_trainings(adapter: Path) -> None:
    np = pytest.importorskip("numpy")
    np.save(adapter / TRAINED_ON, np.array([5, 1], dtype=np.uint64))
    np.save(adapter.parent / "base" / TRAINED_ON, np.array([7], dtype=np.uint64))
    found = models.find_model(str(adapter), base=str(adapter.parent / "base"))
    merged = se.merge_adapter(found, out=adapter.parent / "merged")
    source = models.resolve(str(merged))
    assert source.template == models.resolve(str(adapter)).template
    assert source.trained is not None and source.trained["method"] == "sft"
    assert read_seen(merged / TRAINED_ON).tolist() == [1, 5, 7]
    (adapter / "safemed_eval.json").unlink()
    merged = se.merge_adapter(found, out=adapter.parent / "of-others")
    assert models.resolve(str(merged)).template == models.resolve(str(adapter.parent / "base")).template
    assert data.load(PHANTOM).items and not [*adapter.parent.glob("*.new")]


def test_what_cannot_be_merged_is_refused(adapter: Path) -> None:
    with pytest.raises(SpecError, match="is not an adapter; there is nothing to merge"):
        se.merge_adapter(str(adapter.parent / "base"), out=adapter.parent / "new")
    with pytest.raises(UserError, match="is there already; choose another --out"):
        se.merge_adapter(str(adapter), out=adapter.parent / "base")
    config = json.loads((adapter.parent / "base/config.json").read_text())
    (adapter.parent / "base/config.json").write_text(
        json.dumps(config | {"quantization_config": {"load_in_4bit": True}})
    )
    found = models.find_model(str(adapter), base=str(adapter.parent / "base"))
    with pytest.raises(CheckpointError, match="its base is quantized"):
        se.merge_adapter(found, out=adapter.parent / "new")
    assert not [*adapter.parent.glob("new*")]
