"""Every tensor in a checkpoint's or an adapter's files lands in the model, or is refused by name."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from families import FAMILIES
from safetensors.torch import load_file, save_file
from transformers import conversion_mapping
from transformers.core_model_loading import WeightRenaming

from safemed_eval.core import Question
from safemed_eval.errors import CheckpointError
from safemed_eval.models import load, load_to_train, resolve
from safemed_eval.models.checkpoints.load import _model
from safemed_eval.models.files.strays import refuse_strays

ABCD = Question(text="Which?", options=("a", "b", "c", "d"))
CPU = torch.device("cpu")
LAYER = "model.layers.1.mlp.up_proj.weight"
Weights = dict[str, torch.Tensor]
pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")


@pytest.fixture
def copy(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """A copy of the tiny Qwen2.5-VL."""
    return Path(shutil.copytree(checkpoint("qwen2_5_vl"), tmp_path / "copy"))


def weights_of(folder: Path) -> Weights:
    return load_file(folder / "model.safetensors")


def put(folder: Path, weights: Mapping[str, torch.Tensor], name: str = "model.safetensors") -> None:
    copies = {tensor: value.clone() for tensor, value in weights.items()}
    (folder / name).unlink(missing_ok=True)  # which the values may still be read from
    save_file(copies, folder / name, {"format": "pt"})


def new_names(weights: Weights) -> Weights:
    """As transformers 5 calls them inside the model; the file has the names of older versions."""
    found = {re.sub(r"^model\.", "model.language_model.", name): value for name, value in weights.items()}
    return {re.sub(r"^visual\.", "model.visual.", name): value for name, value in found.items()}


def scores(folder: Path) -> torch.Tensor:
    x = torch.rand(2, 3, 56, 56, generator=torch.Generator().manual_seed(0))
    return load(resolve(str(folder)), device="cpu").classify([ABCD] * 2)(x)


# ---------------------------------------------------------------------------------------------------------- checkpoints


@pytest.mark.parametrize(
    ("weights", "tensors", "twice"),
    [
        (["new.w", "other.w"], ["old.w", "other.w"], None),
        (["new.w"], ["new.w"], None),
        (["new.w"], ["old.w", "new.w"], "new.w under two names, new.w and old.w"),
        (["old.w", "new.w"], ["old.w", "new.w"], "new.w under two names, new.w and old.w"),
        (["old.w", "other.w"], ["old.w", "other.w"], None),
        (["old.w"], ["old.w", "base.old.w"], "old.w under two names, base.old.w and old.w"),
        (["base.new.w"], ["new.w", "base.new.w"], "base.new.w under two names, base.new.w and new.w"),
    ],
)
def test_each_weight_is_read_from_one_tensor(
    weights: list[str], tensors: list[str], twice: str | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As transformers reads them, where it renames old to new: also a tensor that has a place of its own."""
    rules = [WeightRenaming("^old", "new")]
    monkeypatch.setattr(conversion_mapping, "get_model_conversion_mapping", lambda *_: rules)
    save_file({name: torch.ones(1) for name in tensors}, tmp_path / "model.safetensors")
    state = {name: torch.ones(1) for name in weights}
    model: Any = SimpleNamespace(state_dict=lambda: state, base_model_prefix="base")
    files: Any = SimpleNamespace(folder=tmp_path, name="x")
    if twice is None:
        refuse_strays(files, model, ())
    else:
        with pytest.raises(CheckpointError, match=f"--model x: its files hold {twice}"):
            refuse_strays(files, model, ())
    with pytest.raises(CheckpointError, match=r"--model x: 2 tensors in its files fit nowhere .*, such as a\.w;"):
        refuse_strays(files, model, {"b.w", "a.w"})


@pytest.mark.parametrize(
    "name",
    ["model.layers.7.mlp.up_proj.weight", "score.weight", "visual.blocks.9.attn.qkv.weight", "model.embed_tokens.bias"],
)
def test_a_tensor_that_fits_nowhere_is_refused_by_name(copy: Path, name: str) -> None:
    put(copy, {**weights_of(copy), name: torch.ones(3)})
    last = name.removeprefix("model.")
    for how in (load, load_to_train):
        with pytest.raises(
            CheckpointError, match=rf"1 tensors in its files fit nowhere in Qwen2_5_VL\w+, such as .*{last}"
        ):
            how(resolve(str(copy)), device="cpu")


def test_tensors_that_transformers_declares_useless_may_stay(copy: Path) -> None:
    """Buffers that it computes itself, which older versions saved."""
    before = scores(copy)
    put(copy, {**weights_of(copy), "model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8)})
    assert torch.equal(scores(copy), before)


def test_old_and_new_names_are_one_model_and_both_at_once_are_refused(copy: Path) -> None:
    weights, before = weights_of(copy), scores(copy)
    put(copy, new_names(weights))
    assert torch.equal(scores(copy), before)
    named = next(name for name in weights if name.endswith(LAYER))
    twin = next(iter(new_names({named: weights[named]})))
    put(copy, {**weights, twin: weights[named] + 1})
    with pytest.raises(CheckpointError, match=rf"under two names, .*{LAYER}.* and .*{LAYER}.*one would be left out"):
        scores(copy)


def test_a_tied_head_with_its_own_values_is_no_stray(copy: Path) -> None:
    """transformers does not tie weights that are both there and differ: nothing is left out."""
    settings = json.loads((copy / "config.json").read_text())
    settings["tie_word_embeddings"] = settings["text_config"]["tie_word_embeddings"] = True
    (copy / "config.json").write_text(json.dumps(settings))
    model = _model(resolve(str(copy)), CPU, "auto", None, None)
    head, embedding = (part().weight for part in (model.get_output_embeddings, model.get_input_embeddings))
    assert torch.equal(head, weights_of(copy)["lm_head.weight"]) and not torch.equal(head, embedding)


@pytest.mark.parametrize("family", FAMILIES)
def test_no_family_loses_a_tensor(checkpoint: Callable[[str], Path], family: str) -> None:
    """As `save_pretrained` writes it, and with one tensor more, which is found in each."""
    folder = checkpoint(family)
    _model(resolve(str(folder)), CPU, "auto", None, None)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_names_a_tensor_too_many(checkpoint: Callable[[str], Path], family: str, tmp_path: Path) -> None:
    folder = Path(shutil.copytree(checkpoint(family), tmp_path / family))
    weights = weights_of(folder)
    name = next(name for name in weights if re.search(r"\.\d+\.", name))
    put(folder, {**weights, re.sub(r"\.\d+\.", ".77.", name): weights[name]})
    with pytest.raises(CheckpointError, match=r"1 tensors in its files fit nowhere.*\.77\."):
        _model(resolve(str(folder)), CPU, "auto", None, None)


# --------------------------------------------------------------------------------------------------------------- shards


def split(folder: Path) -> tuple[Weights, Weights, dict[str, str]]:
    """The weights in two shards, and which is where."""
    weights = weights_of(folder)
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    halves = [{name: weights[name] for name in half} for half in (names[: len(names) // 2], names[len(names) // 2 :])]
    index = {name: f"model-{number}.safetensors" for number, half in enumerate(halves) for name in half}
    return halves[0], halves[1], index


def write(folder: Path, first: Weights, second: Weights, index: dict[str, str]) -> None:
    put(folder, first, "model-0.safetensors")
    put(folder, second, "model-1.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": index}))


def test_index_and_shards_hold_the_same_tensors(copy: Path) -> None:
    before = scores(copy)
    first, second, index = split(copy)
    write(copy, first, second, index)
    assert torch.equal(scores(copy), before)
    write(copy, first, second, {**index, "model.extra": "model-0.safetensors"})
    with pytest.raises(CheckpointError, match=r"names 1 tensors that no shard holds, such as model\.extra in model-0"):
        resolve(str(copy))
    write(copy, {**first, "model.extra": torch.ones(1)}, second, index)
    with pytest.raises(CheckpointError, match=r"does not name 1 tensors that its shards hold, such as model\.extra in"):
        resolve(str(copy))
    both = min(first)
    write(copy, first, {**second, both: first[both] + 1}, index)
    with pytest.raises(
        CheckpointError, match=rf"the tensor {both} is in model-0\.safetensors and in model-1\.safetensors"
    ):
        resolve(str(copy))


def test_one_file_and_an_index_are_two_checkpoints(copy: Path) -> None:
    """transformers would read the one file, whatever the shards hold; a third file that nobody names is no weight."""
    weights = weights_of(copy)
    first, second, index = split(copy)
    write(copy, first, second, index)
    put(copy, {"x": torch.ones(1)}, "consolidated.safetensors")
    load(resolve(str(copy)), device="cpu")
    put(copy, weights)
    with pytest.raises(CheckpointError, match="which are two checkpoints; remove the one that is not meant"):
        resolve(str(copy))


# ------------------------------------------------------------------------------------------------------------- adapters


@pytest.fixture
def adapter(checkpoint: Callable[[str], Path], tmp_path: Path) -> Path:
    """LoRA over a copy of the tiny Qwen2.5-VL, in `base`."""
    peft = pytest.importorskip("peft", reason="peft is in the train extra")
    base = Path(shutil.copytree(checkpoint("qwen2_5_vl"), tmp_path / "base"))
    settings = peft.LoraConfig(r=4, target_modules=["q_proj", "v_proj"], init_lora_weights=False)
    model = load(resolve(str(base)), device="cpu").scorer.model
    peft.get_peft_model(model, settings).save_pretrained(tmp_path / "adapter")
    load(resolve(str(tmp_path / "adapter")), device="cpu")
    return tmp_path / "adapter"


NOWHERE = r"2 tensors of the adapter fit nowhere in its base, such as {}"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("layers.1.self_attn.q_proj", "layers.7.self_attn.q_proj"), NOWHERE.format(r".*layers\.7\..*lora_A\.weight")),
        (("layers.1.self_attn.q_proj", "layers.1.self_attn.k_proj"), NOWHERE.format(r".*k_proj\.lora_A\.weight")),
        (
            ("base_model.model.", "transformer."),
            r"tensors of the adapter fit nowhere|weights are missing in the adapter",
        ),
    ],
)
@pytest.mark.parametrize("instead", [False, True])
def test_a_tensor_of_an_adapter_that_fits_nowhere_is_refused(
    adapter: Path, change: tuple[str, str], message: str, instead: bool
) -> None:
    """Beside all that should be there, or in place of it: then something is missing, too."""
    weights = load_file(adapter / "adapter_model.safetensors")
    moved = {name.replace(*change): value for name, value in weights.items()}
    assert moved.keys() != weights.keys()
    put(adapter, moved if instead else {**weights, **moved}, "adapter_model.safetensors")
    for how in (load, load_to_train):
        with pytest.raises(CheckpointError, match="weights are missing in the adapter" if instead else message):
            how(resolve(str(adapter)), device="cpu")


def test_an_adapter_of_another_rank_or_kind_is_refused(adapter: Path) -> None:
    weights = load_file(adapter / "adapter_model.safetensors")
    name = next(one for one in weights if one.endswith("lora_A.weight"))
    put(adapter, {**weights, name: weights[name][:2]}, "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"peft cannot load the adapter: .*size mismatch"):
        load(resolve(str(adapter)), device="cpu")
    put(
        adapter,
        {**weights, name.replace("lora_A.weight", "lora_magnitude_vector"): torch.ones(64)},
        "adapter_model.safetensors",
    )
    with pytest.raises(CheckpointError, match=r"1 tensors of the adapter fit nowhere .*lora_magnitude_vector"):
        load(resolve(str(adapter)), device="cpu")


def test_a_module_that_an_adapter_replaces_is_whole(checkpoint: Callable[[str], Path], tmp_path: Path) -> None:
    peft = pytest.importorskip("peft", reason="peft is in the train extra")
    model = load(resolve(str(checkpoint("qwen2_5_vl"))), device="cpu").scorer.model
    settings = peft.LoraConfig(r=4, target_modules=["q_proj"], modules_to_save=["merger"], init_lora_weights=False)
    peft.get_peft_model(model, settings).save_pretrained(tmp_path)
    weights = load_file(tmp_path / "adapter_model.safetensors")
    saved = [name for name in weights if "merger" in name]
    load(resolve(str(tmp_path)), device="cpu")
    put(tmp_path, {**weights, saved[0] + "s": torch.ones(1)}, "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"1 tensors of the adapter fit nowhere .*merger"):
        load(resolve(str(tmp_path)), device="cpu")
    put(tmp_path, {name: value for name, value in weights.items() if name != saved[0]}, "adapter_model.safetensors")
    with pytest.raises(CheckpointError, match=r"peft cannot load the adapter: .*merger"):
        load(resolve(str(tmp_path)), device="cpu")


@pytest.mark.parametrize("over", ["base", "adapter"])
def test_an_adapter_over_other_weights_than_it_was_trained_over_is_refused(adapter: Path, over: str) -> None:
    """Trained over a checkpoint, or gone on with: what its note says of the base is compared with what is there."""
    base = adapter.parent / "base"
    model = resolve(str(base)).identity if over == "base" else resolve(str(adapter)).identity
    (adapter / "safemed_eval.json").write_text(json.dumps({"model": model}))
    put(base, weights_of(base))
    resolve(str(adapter))
    weights = weights_of(base)
    put(base, {**weights, "lm_head.weight": weights["lm_head.weight"] + 1})
    with pytest.raises(
        CheckpointError, match=r"was trained over other weights than .*base holds now: sha256 \w{12} in"
    ):
        resolve(str(adapter))
    for unknown in ({}, {"model": None}, {"model": {"settings_sha256": "x"}}, {"model": {"base": "x"}}):
        (adapter / "safemed_eval.json").write_text(json.dumps(unknown))
        assert resolve(str(adapter)).base is not None
    (adapter / "safemed_eval.json").unlink()
    load(resolve(str(adapter)), device="cpu")


def test_pickles_beside_the_base_do_not_change_its_weights(adapter: Path) -> None:
    """Trained with --allow-pickle, which hashes them too, or without: safetensors are what is read."""
    base = adapter.parent / "base"
    torch.save({}, base / "pytorch_model.bin")
    for allowed in (False, True):
        model = resolve(str(base), allow_pickle=allowed).identity
        (adapter / "safemed_eval.json").write_text(json.dumps({"model": model}))
        for now in (False, True):
            assert resolve(str(adapter), allow_pickle=now).base is not None
