"""Checkpoints: copies of a shipped one with something wrong, models of one's own, denoisers, templates."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bad.case import TOY, Case, Make, certified, nothing
from safemed_eval.models import resolve

Json = dict[str, Any]
SHIPPED = resolve("builtin:sft").folder
WEIGHTS = "model.safetensors"
FEW = "phantom:images=2"


def checkpoint(place: Path, *, without: Sequence[str] = (), **changed: Any) -> None:
    """The shipped checkpoint, by links; `changed` are files by stem: their new content, or how the old one changes."""
    place.mkdir(parents=True, exist_ok=True)
    assert SHIPPED is not None
    for file in SHIPPED.iterdir():
        if file.name in without:
            continue
        change = changed.get(file.stem)
        if change is None:
            (place / file.name).symlink_to(file)
        elif callable(change):
            (place / file.name).write_text(json.dumps(change(json.loads(file.read_text()))))
        else:
            (place / file.name).write_bytes(change if isinstance(change, bytes) else change.encode())


def made(*, without: Sequence[str] = (), further: dict[str, bytes] | None = None, **changed: Any) -> Make:
    """A checkpoint `m` that is spoilt like this, with further files."""

    def make(folder: Path) -> None:
        checkpoint(folder / "m", without=without, **changed)
        for name, content in (further or {}).items():
            (folder / "m" / name).write_bytes(content)

    return make


def adapter(config: Any, *, weights: str | None = "adapter_model.safetensors", **files: bytes) -> Make:
    """A PEFT adapter's folder `m`; its weights are those of nothing."""

    def make(folder: Path) -> None:
        (folder / "m").mkdir()
        text = config if isinstance(config, str) else json.dumps(config)
        (folder / "m/adapter_config.json").write_text(text)
        if weights:
            (folder / "m" / weights).write_bytes(tensors({}))

    return make


def tensors(header: Json, body: bytes = b"") -> bytes:
    """A file of safetensors with this header."""
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + body


def cut(share: float) -> bytes:
    assert SHIPPED is not None
    whole = (SHIPPED / WEIGHTS).read_bytes()
    return whole[: int(share * len(whole))]


def python(code: str) -> Make:
    return lambda folder: (folder / f"own_{abs(hash(code))}.py").write_text(code)


def own(code: str, factory: str = "make") -> tuple[str, Make]:
    """A model of one's own: the name of its factory, and the file."""
    return f"python:own_{abs(hash(code))}:{factory}", python(code)


def put(key: str, value: Any) -> Callable[[Json], Json]:
    return lambda config: {**config, key: value}


def drop(key: str) -> Callable[[Json], Json]:
    return lambda config: {name: value for name, value in config.items() if name != key}


def indexed(content: Any) -> Make:
    """A checkpoint in shards."""
    text = content if isinstance(content, bytes) else json.dumps(content).encode()
    return made(without=[WEIGHTS], further={"model.safetensors.index.json": text, "a.safetensors": cut(1)})


LFS = b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 3774928\n"

# name, how m is made, words, whether it is told before torch
FILES: list[tuple[str, Make, Sequence[str], bool]] = [
    ("an empty folder", lambda f: (f / "m").mkdir(), ["m", "no config.json"], True),
    ("a file", lambda f: (f / "m").touch(), ["m: is a file", "folder"], True),
    ("no config", made(without=["config.json"]), ["no config.json"], True),
    ("a broken config", made(config="{"), ["config.json", "cannot be read as JSON"], True),
    ("an empty config", made(config=""), ["config.json", "cannot be read as JSON"], True),
    ("a config that is a list", made(config="[]"), ["config.json", "expected an object"], True),
    ("a config of bytes", made(config=bytes(range(256))), ["config.json", "cannot be read as JSON"], True),
    ("a config without end", made(config="[" * 100_000), ["config.json", "cannot be read as JSON"], True),
    ("a config of nothing", made(config="{}"), ["m: transformers cannot load it"], False),
    ("an unknown architecture", made(config=put("model_type", "nonesuch")), ["cannot load it", "nonesuch"], False),
    ("a type that is a number", made(config=put("model_type", 3)), ["transformers cannot load it"], False),
    ("a text-only model", made(config='{"model_type": "llama"}'), ["transformers cannot load it", "llama"], False),
    ("an encoder-decoder of texts", made(config='{"model_type": "t5"}'), ["transformers cannot load it"], False),
    ("no processor", made(without=["processor_config.json"]), ["no processor_config.json", "save the processor"], True),
    ("a broken processor", made(processor_config="{"), ["processor cannot be loaded"], False),
    ("a processor of nothing", made(processor_config="{}"), ["processor"], False),
    ("no tokenizer", made(without=["tokenizer.json", "tokenizer_config.json"]), ["tokenizer"], False),
    ("a broken tokenizer", made(tokenizer="{"), ["processor cannot be loaded"], False),
    ("an empty tokenizer", made(tokenizer=""), ["processor cannot be loaded"], False),
    ("a broken chat template", made(chat_template="{% for %}"), ["the chat template raised"], False),
    (
        "a chat template that fails",
        made(chat_template="{{ 1 / 0 }}"),
        ["the chat template raised"],
        False,
    ),
    (
        "a chat template without image",
        made(chat_template="{{ messages[0]['role'] }}"),
        ["image"],
        False,
    ),
    ("no weights", made(without=[WEIGHTS]), ["no weights (*.safetensors)"], True),
    ("weights of zero bytes", made(model=b""), [WEIGHTS, "download it again"], True),
    ("half the weights", made(model=cut(0.5)), [WEIGHTS, "download it again"], True),
    ("weights cut in their header", made(model=cut(0.0005)), [WEIGHTS, "download it again"], True),
    ("weights that are a pointer", made(model=LFS), [WEIGHTS, "git lfs pull"], True),
    ("weights that are a web page", made(model=b"<!doctype html><html>" + bytes(99)), [WEIGHTS, "safetensors"], True),
    ("weights that are a pickle", made(model=b"\x80\x04\x95" + bytes(99)), [WEIGHTS, "safetensors"], True),
    ("weights with a broken header", made(model=struct.pack("<Q", 8) + b"{{{{{{{{"), [WEIGHTS, "safetensors"], True),
    ("weights of another model", made(model=tensors({})), ["weights are missing", "would be random"], False),
    (
        "pickled weights",
        made(without=[WEIGHTS], further={"pytorch_model.bin": b"x"}),
        ["pickle", "--allow-pickle"],
        True,
    ),
    ("pickled weights of torch", made(without=[WEIGHTS], further={"model.pt": b"x"}), ["pickle", "model.pt"], True),
    (
        "code of its own",
        made(config=put("auto_map", {"AutoModel": "x.Y"})),
        ["Python code", "--trust-remote-code"],
        True,
    ),
    ("an index that is broken", indexed(b"{"), ["index.json", "cannot be read as JSON"], True),
    ("an index that is a list", indexed([]), ["index.json", "expected an object"], True),
    ("an index of nothing", indexed({}), ["weight_map does not name a file"], True),
    ("an index of numbers", indexed({"weight_map": {"a": 1}}), ["weight_map does not name a file"], True),
    (
        "a missing shard",
        indexed({"weight_map": {"a": "a.safetensors", "b": "b.safetensors"}}),
        ["1 weight files are missing: b.safetensors"],
        True,
    ),
    (
        "a shard outside",
        indexed({"weight_map": {"a": "../t.safetensors"}}),
        ["weight_map names ../t.safetensors"],
        True,
    ),
    (
        "a wrong shard",
        indexed({"weight_map": {"lm_head.weight": "a.safetensors"}}),
        ["does not name", "tensors that its shards hold", "download them again"],
        True,
    ),
    ("another width", made(config=put("text_config", {"hidden_size": 32})), ["transformers cannot load it"], False),
    ("a broken note", made(safemed_eval="{"), ["safemed_eval.json", "cannot be read as JSON"], True),
    ("a note without template", made(safemed_eval=drop("template")), ["holds no template with 'user' and 'cue'"], True),
    ("a note with half a template", made(safemed_eval=put("template", {"user": "x"})), ["holds no template"], True),
    (
        "a note whose template asks nothing",
        made(safemed_eval=put("template", {"user": "x", "cue": "y"})),
        ["{question} must occur once"],
        True,
    ),
    ("a note whose recipe is a text", made(safemed_eval=put("recipe", "x")), ["safemed_eval.json"], True),
    ("an adapter without base", adapter({"peft_type": "LORA"}), ["names no base_model_name_or_path"], True),
    ("an adapter whose base is null", adapter({"base_model_name_or_path": None}), ["names no base"], True),
    ("an adapter whose base is a number", adapter({"base_model_name_or_path": 7}), ["base_model_name_or_path"], True),
    (
        "an adapter whose base is gone",
        adapter({"base_model_name_or_path": "./gone"}),
        ["./gone", "is not there"],
        True,
    ),
    ("an adapter over itself", adapter({"base_model_name_or_path": "m"}), ["no config.json"], True),
    ("an adapter with a broken config", adapter("{"), ["adapter_config.json", "cannot be read as JSON"], True),
    (
        "an adapter without weights",
        adapter({"base_model_name_or_path": str(SHIPPED)}, weights=None),
        ["m: no weights"],
        True,
    ),
    (
        "an adapter of pickles",
        adapter({"base_model_name_or_path": str(SHIPPED)}, weights="adapter_model.bin"),
        ["pickle format"],
        True,
    ),
    (
        "an adapter of pickles beside other weights",
        lambda f: (
            (
                adapter({"base_model_name_or_path": str(SHIPPED)}, weights="adapter_model.bin")(f)
                or (f / "m/x.safetensors").write_bytes(tensors({}))
            )
            and None
        ),
        ["pickle format"],
        True,
    ),
    (
        "an adapter of no kind",
        adapter({"base_model_name_or_path": str(SHIPPED), "peft_type": "NONE"}),
        ["peft cannot load the adapter"],
        False,
    ),
    (
        "an adapter with other weights",
        adapter({"base_model_name_or_path": str(SHIPPED), "peft_type": "LORA", "r": 2, "target_modules": ["q_proj"]}),
        ["weights are missing in the adapter"],
        False,
    ),
]

NAMES: list[tuple[str, str, Sequence[str]]] = [
    ("nothing", "", ["--model", "no such folder"]),
    ("a blank", " ", ["--model", "no such folder"]),
    ("no such folder", "./gone", ["./gone", "no such folder"]),
    ("an absolute path", "/gone/model", ["/gone/model", "no such folder"]),
    ("three parts", "a/b/c", ["a/b/c", "no such folder, and not a hub id like org/model"]),
    ("half a revision", "org/name@", ["org/name@"]),
    ("an address", "https://example.org/model", ["no such folder"]),
    ("builtin of nothing", "builtin:", ["builtin:", "at-grpo"]),
    ("builtin with a slip", "builtin:stf", ["did you mean 'sft'"]),
    ("builtin that climbs", "builtin:../builtin/sft", ["no such checkpoint ships"]),
    ("half a factory", "python:x", ["python:package.module:factory"]),
    ("too much of a factory", "python:a:b:c", ["python:package.module:factory"]),
    ("a factory with a path", "python:../x:make", ["python:package.module:factory"]),
    ("a name of 5000 letters", "x" * 5000, ["--model", "no such folder"]),
    ("a zero byte", "a\0b", ["--model a\\x00b"]),
]

CODE: list[tuple[str, str, Sequence[str]]] = [
    ("a module that raises", "1 / 0", ["cannot be imported", "ZeroDivisionError"]),
    ("a module that ends the program", "raise SystemExit(0)", ["cannot be imported", "SystemExit"]),
    ("a module with a slip", "def make(:", ["cannot be imported", "SyntaxError"]),
    ("a module that needs another", "import not_there_at_all", ["No module named 'not_there_at_all'"]),
    ("a module without the factory", "def mak(): pass", ["has no function 'make'", "did you mean 'mak'"]),
    ("a factory that is a number", "make = 3", ["has no function 'make'"]),
    ("a factory that raises", "def make(): 1 / 0", ["the factory raised", "ZeroDivisionError"]),
    ("a factory that ends the program", "import sys\ndef make(): sys.exit(0)", ["the factory raised", "SystemExit"]),
    ("a factory of nothing", "def make(): pass", ["none of 'scores', 'vote', 'write'"]),
    ("a factory that wants too much", "def make(a, b, c): pass", ["the factory raised"]),
    (
        "scores of the wrong shape",
        "class M:\n    def scores(self, x, q): return x.sum(3)\nmake = M",
        ["answers", "scores of shape"],
    ),
    (
        "scores that are a text",
        "class M:\n    def scores(self, x, q): return 'A'\nmake = M",
        ["answers", "of type str"],
    ),
    (
        "scores that raise",
        "class M:\n    def scores(self, x, q): return {}['k']\nmake = M",
        ["the model raised KeyError"],
    ),
    (
        "votes outside",
        "import torch\nclass M:\n    def vote(self, x, q): return torch.full((len(x),), 99)\nmake = M",
        ["voted outside"],
    ),
    (
        "a description that raises",
        "from safemed_eval.models.toy import Brightness\n"
        "class M(Brightness):\n    def describe(self, q): return 1 / 0\nmake = M",
        ["describe(question) gives no JSON object"],
    ),
]


VOTES = "class M:\n    def vote(self, x, q): return (x.mean((1, 2, 3)) > 0.5).long()\nmake = M"
WRITES = (
    "class M:\n    vote = None\n    def write(self, x, q): return ['AB'[int(one.mean() > 0.5)] for one in x]\nmake = M"
)
SCORES = "from safemed_eval.models.toy import brightness as make"
LACKING: list[tuple[str, str, tuple[str, ...], Sequence[str]]] = [
    *(
        ("votes", VOTES, ("evaluate", "--attack", spec), [f"--attack {spec}", "needs the scores", "only votes"])
        for spec in ("art:SquareAttack", "art:ZooAttack", "art:AutoAttack", "art:DeepFool")
    ),
    *(
        ("votes", VOTES, ("evaluate", "--attack", "noise", "--attack", spec), [f"--attack {spec}", "only votes"])
        for spec in ("fgsm", "pgd", "apgd", "suite", "adaptive")
    ),
    ("votes", VOTES, ("evaluate", "--smooth", "sigma=0.25", "--attack", "pgd"), ["--attack pgd", "only votes"]),
    ("votes", VOTES, ("evaluate", "--attack", "art:SquareAttack", "--attack", "clean"), ["only votes"]),
    ("votes", VOTES, ("certify", "--sigma", "0.25", "--falsify"), ["--falsify: needs the scores", "only votes"]),
    ("votes", VOTES, ("plan", "--attack", "art:SquareAttack"), ["--attack art:SquareAttack", "only votes"]),
    ("votes", VOTES, ("plan", "--attack", "pgd"), ["--attack pgd", "only votes"]),
    ("writes", WRITES, ("evaluate", "--attack", "art:SquareAttack"), ["needs the scores", "only writes"]),
    ("writes", WRITES, ("evaluate", "--attack", "adaptive"), ["--attack adaptive", "only writes"]),
    ("scores", SCORES, ("evaluate", "--attack", "adaptive"), ["texts that the model writes", "does not write"]),
]


def _lacking(code: str, options: tuple[str, ...]) -> tuple[Make, tuple[str, ...]]:
    model, make = own(code)
    out = () if options[0] == "plan" else ("--out", "run")
    return make, (options[0], "--model", model, "--data", FEW, *options[1:], *out)


def denoiser(settings: str | None = None, weights: bytes | None = None) -> Make:
    def make(folder: Path) -> None:
        (folder / "d").mkdir()
        for name, content in (
            ("denoiser.json", settings and settings.encode()),
            ("denoiser.safetensors", weights),
        ):
            if content is not None:
                (folder / "d" / name).write_bytes(content)

    return make


def _pt2(content: bytes) -> Make:
    return lambda folder: (folder / "d.pt2").write_bytes(content)


GOOD_SHAPE = '{"width": 8, "blocks": 1}'
EMPTY_ZIP = b"PK\5\6" + bytes(18)
DENOISERS: list[tuple[str, Make, tuple[str, ...], Sequence[str], bool]] = [
    ("missing", nothing, ("d",), ["--denoiser d: no such folder or file"], True),
    ("nothing", nothing, ("",), ["--denoiser"], True),
    ("an empty folder", denoiser(), ("d",), ["no denoiser.json in it", "train denoiser"], True),
    ("no weights", denoiser(GOOD_SHAPE), ("d",), ["no denoiser.safetensors in it"], True),
    ("broken settings", denoiser("{", tensors({})), ("d",), ["denoiser.json", "cannot be read as JSON"], False),
    ("a width of 0", denoiser('{"width": 0}', tensors({})), ("d",), ["width must be a whole number from 1"], False),
    ("a width of text", denoiser('{"width": "x"}', tensors({})), ("d",), ["width must be a whole number"], False),
    ("an unknown setting", denoiser('{"depth": 3}', tensors({})), ("d",), ["--denoiser d", "depth"], False),
    ("other weights", denoiser(GOOD_SHAPE, tensors({})), ("d",), ["--denoiser d", "cannot be read"], False),
    ("broken weights", denoiser(GOOD_SHAPE, b"xx"), ("d",), ["--denoiser d", "cannot be read"], False),
    ("another kind of file", lambda f: (f / "d").touch(), ("d",), ["not one of torch.export"], True),
    ("a program that is no archive", _pt2(b"x"), ("d.pt2",), ["which is a zip archive"], True),
    ("a program", _pt2(EMPTY_ZIP), ("d.pt2",), ["--allow-pickle"], True),
    ("a broken program", _pt2(EMPTY_ZIP), ("d.pt2", "--allow-pickle"), ["torch.export cannot load it"], False),
    ("half a factory", nothing, ("python:x",), ["python:package.module:factory"], True),
    ("a factory that is not there", nothing, ("python:not_there:make",), ["No module named 'not_there'"], False),
]

TEMPLATES: list[tuple[str, bytes, Sequence[str]]] = [
    ("without places", b"Answer!", ["{question} must occur once in it, found 0"]),
    ("without options", b"{question}", ["{options} must occur once"]),
    ("with a place twice", b"{question} {question} {options}", ["must occur once in it, found 2"]),
    ("of bytes", bytes(range(256)), ["--template t.txt", "cannot be read"]),
    ("of nothing", b"", ["--template t.txt", "must occur once"]),
]


def _template(content: bytes) -> Make:
    return lambda folder: (folder / "t.txt").write_bytes(content)


def _asked(*argv: str, model: str) -> tuple[str, ...]:
    return certified("--sigma", "0.25", "--n", "20", "--n0", "2", *argv, data=FEW, model=model)


CASES = [
    *(
        Case(name=f"{name} alone: {' '.join(options)}", make=make, argv=argv, says=tuple(says), early=False)
        for name, (make, argv), options, says in (
            (name, _lacking(code, options), options, says) for name, code, options, says in LACKING
        )
    ),
    *(
        Case(name=f"checkpoint: {name}", make=make, argv=_asked(model="./m"), says=tuple(says), early=early)
        for name, make, says, early in FILES
    ),
    *(
        Case(name=f"model: {name}", argv=_asked("--offline", model=model), says=tuple(says))
        for name, model, says in NAMES
    ),
    *(
        Case(name=f"model: {name}", make=make, argv=_asked(model=model), says=tuple(says), early=False)
        for name, (model, make), says in ((name, own(code), says) for name, code, says in CODE)
    ),
    *(
        Case(
            name=f"denoiser: {name}",
            make=make,
            argv=_asked("--denoiser", *argv, model=TOY),
            says=tuple(says),
            early=early,
        )
        for name, make, argv, says, early in DENOISERS
    ),
    *(
        Case(
            name=f"template: {name}",
            make=_template(content),
            argv=_asked("--template", "t.txt", model="builtin:sft"),
            says=tuple(says),
        )
        for name, content, says in TEMPLATES
    ),
    Case(
        name="model: not in the cache",
        argv=_asked("--offline", model="org/nonesuch"),
        says=("org/nonesuch", "--offline", "cache"),
    ),
    Case(
        name="template: a folder",
        make=lambda folder: (folder / "t").mkdir(),
        argv=_asked("--template", "t", model="builtin:sft"),
        says=("--template t", "no such file"),
    ),
    Case(
        name="template: for a model of one's own",
        argv=_asked("--template", "think", model=TOY),
        says=("--template has no effect on a python: model",),
    ),
]
