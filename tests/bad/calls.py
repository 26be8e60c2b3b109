"""Calls of the Python API: arguments of another type, out of bounds, without effect, and what is not there.

Each is written as a user would write it, and evaluated in a folder with a table, an image, a file and run folders.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from synthetic import certified, evaluated, write_run

import safemed_eval as se
from bad.case import TOY, Case
from safemed_eval.core import Item, Question

_CONDITIONS = ("clean", "fgsm:eps=4/255")


class NoScores:
    """An object that is no model."""


def item(**changes: object) -> Item:
    """A good item, but for these fields."""
    good: Mapping[str, Any] = {
        "id": "a",
        "question": Question(text="q", options=("a", "b")),
        "label": 0,
        "image": "x.png",
        "root": Path(),
    }
    return Item(**{**good, **changes})


def files(folder: Path) -> None:
    """Put what the calls name into the folder."""
    Image.new("L", (16, 16)).save(folder / "x.png")
    head, line = "id,image,question,option_a,option_b,answer", "1,x.png,q?,a lung,a liver,a lung"
    (folder / "t.csv").write_text(f"{head}\n{line}\n")
    (folder / "file").write_text("x")
    for name in ("empty", "bad", "runs"):
        (folder / name).mkdir()
    (folder / "bad/run.json").write_text("{}")
    (folder / "bad/records.jsonl").write_text("")
    for name, right in (("e", 2), ("f", 1)):
        records = [evaluated(i, c, i >= right) for i in range(4) for c in _CONDITIONS]
        write_run(folder / "runs" / name, records, "evaluate", conditions=_CONDITIONS)
    write_run(folder / "runs/c", [certified(i, 990) for i in range(4)], "certify")


def call(expression: str) -> object:
    """Evaluate a call in the working folder."""
    names: dict[str, Any] = {"TOY": TOY, "DATA": "phantom:images=2", "se": se, "torch": torch, "Path": Path}
    names |= {"item": item, "Question": Question, "NoScores": NoScores}
    for name, place in (("RUN", "runs/e"), ("CERT", "runs/c")):
        if expression.startswith(name):
            names[name] = se.Run.read(place)
    return eval(expression, names)


CALLS: list[tuple[str, Sequence[str]]] = [
    ('se.load_model(TOY, device="cuda:99")', ["cuda:99"]),
    ('se.load_model("builtin:sft", dtype="float64")', ["dtype: 'float64' is not a choice"]),
    ('se.load_model("builtin:sft", attn="x")', ["attn_implementation", "x"]),
    ('se.load_model("builtin:sft", device_map="x")', ["device_map", "found x"]),
    ('se.load_model("python:nonesuch:f")', ["nonesuch"]),
    ('se.load_model("python:os:nonesuch")', ["nonesuch"]),
    ('se.load_model("python:os:path")', ["os:path"]),
    ('se.load_model("python:safemed_eval.models.toy:nonesuch")', ["nonesuch"]),
    (
        'se.evaluate(TOY, DATA, attacks="pgd")',
        ["attacks must be a list (each element a text or an instance of Attack), got 'pgd'"],
    ),
    (
        'se.evaluate(TOY, DATA, attacks="pgd:eps=4/255,steps=2")',
        ["attacks must be a list (each element a text or an instance of Attack), got 'pgd:eps=4/255,steps=2'"],
    ),
    (
        'se.evaluate(TOY, DATA, attacks=[""])',
        ["--attack : unknown attack ''; known: adaptive, apgd, art, clean, corrupt, fgsm, noise, ove"],
    ),
    (
        "se.evaluate(TOY, DATA, attacks=[None])",
        ["an element of attacks must be a text or an instance of Attack, got None"],
    ),
    ("se.evaluate(TOY, DATA, attacks=[3])", ["an element of attacks must be a text or an instance of Attack, got 3"]),
    (
        "se.evaluate(TOY, DATA, attacks=3)",
        ["attacks must be a list (each element a text or an instance of Attack), got 3"],
    ),
    (
        "se.evaluate(TOY, DATA, attacks=None)",
        ["attacks must be a list (each element a text or an instance of Attack), got None"],
    ),
    ('se.evaluate(TOY, DATA, attacks=["pdg"])', ["--attack pdg: unknown attack 'pdg'; did you mean 'pgd'?"]),
    ('se.evaluate(TOY, DATA, attacks=["pgd:eps=0"])', ["--attack pgd: eps must be above 0 and at most 100000, got 0"]),
    ("se.evaluate(None, DATA)", ["a model has at least one of 'scores', 'vote', 'write', and NoneType has none"]),
    ("se.evaluate(3, DATA)", ["a model has at least one of 'scores', 'vote', 'write', and int has none"]),
    ('se.evaluate("", DATA)', ["--model : no such folder, and not a hub id like org/model"]),
    ('se.evaluate("nonesuch/x y", DATA)', ["--model nonesuch/x y: no such folder, and not a hub id like org/model"]),
    (
        'se.evaluate("builtin:stf", DATA)',
        ["--model builtin:stf: no such checkpoint ships with this package; did you mean 'sft'?"],
    ),
    ("se.evaluate(NoScores(), DATA)", ["a model has at least one of 'scores', 'vote', 'write', and NoScores has none"]),
    ('se.evaluate(Path("gone"), DATA)', ["--model gone: no such folder, and not a hub id like org/model"]),
    ('se.evaluate(Path("empty"), DATA)', ["empty: not a checkpoint, there is no config.json in it"]),
    ('se.evaluate("./gone", DATA)', ["--model ./gone: no such folder, and not a hub id like org/model"]),
    ("se.evaluate([TOY], DATA)", ["a model has at least one of 'scores', 'vote', 'write', and list has none"]),
    ('se.evaluate({"model": TOY}, DATA)', ["a model has at least one of 'scores', 'vote', 'write', and dict has none"]),
    (
        "se.evaluate(TOY, None)",
        ["data must be an instance of Data, an instance of Choice, a text or a function, got None"],
    ),
    ("se.evaluate(TOY, 3)", ["data must be an instance of Data, an instance of Choice, a text or a function, got 3"]),
    ('se.evaluate(TOY, "")', ["--data : say what it is, medr1:, omnimedvqa:, table:"]),
    (
        'se.evaluate(TOY, "nonesuch")',
        ["--data nonesuch: unknown kind 'nonesuch'; known: medr1, omnimedvqa, phantom, table"],
    ),
    ('se.evaluate(TOY, "table:gone.csv")', ["--data table:gone.csv: no such file or folder: gone.csv"]),
    (
        'se.evaluate(TOY, Path("t.csv"))',
        ["data must be an instance of Data, an instance of Choice, a text or a function, got PosixPath('t.csv')"],
    ),
    (
        'se.evaluate(TOY, ["phantom"])',
        ["data must be an instance of Data, an instance of Choice, a text or a function, got ['phantom']"],
    ),
    ("se.evaluate(TOY, {})", ["data must be an instance of Data, an instance of Choice, a text or a function, got {}"]),
    ("se.evaluate(TOY, [])", ["data must be an instance of Data, an instance of Choice, a text or a function, got []"]),
    ("se.evaluate(TOY, lambda: None)", ["data: the function must return what choose_data returns, got None"]),
    ('se.evaluate(TOY, lambda: "phantom")', ["data: the function must return what choose_data returns, got 'phantom'"]),
    (
        "se.evaluate(TOY, [item()])",
        ["data must be an instance of Data, an instance of Choice, a text or a function, got [Item(i"],
    ),
    ("se.evaluate(TOY, DATA, keep_images=-1)", ["--keep-images -1: write a number of items"]),
    ("se.evaluate(TOY, DATA, keep_images=2)", ["--keep-images: are kept in the run folder; name one with --out"]),
    ('se.evaluate(TOY, DATA, keep_images="x", out="r")', ["keep_images must be a whole number, got 'x'"]),
    ('se.evaluate(TOY, DATA, keep_images=1.5, out="r")', ["keep_images must be a whole number, got 1.5"]),
    ("se.evaluate(TOY, DATA, planted=-1)", ["--planted -1: write a number of items"]),
    (
        "se.evaluate(TOY, DATA, planted=3)",
        ["--planted: no attack of this run follows gradients of the model's scores; add --attack pgd"],
    ),
    ('se.evaluate(TOY, DATA, planted="x")', ["planted must be a whole number, got 'x'"]),
    ('se.evaluate(TOY, DATA, smooth="")', ["--smooth: needs sigma=..."]),
    ('se.evaluate(TOY, DATA, smooth="x")', ["--smooth: 'x' is not key=value"]),
    ('se.evaluate(TOY, DATA, smooth="sigma=0")', ["--smooth: --sigma: sigma must be above 0, got 0"]),
    ('se.evaluate(TOY, DATA, smooth="sigma=-1")', ["--smooth: --sigma: sigma must be above 0, got -1"]),
    ('se.evaluate(TOY, DATA, smooth="n=3")', ["--smooth: needs sigma=..."]),
    ("se.evaluate(TOY, DATA, smooth=0.25)", ["smooth must be a text, an instance of Voting or None, got 0.25"]),
    (
        'se.evaluate(TOY, DATA, smooth={"sigma": 0.25})',
        ["smooth must be a text, an instance of Voting or None, got {'sigma': 0.25}"],
    ),
    (
        'se.evaluate(TOY, DATA, smooth="sigma=0.25", official=True)',
        ["--official: only a transformers checkpoint has an official 8-bit path"],
    ),
    (
        'se.evaluate(TOY, DATA, smooth="sigma=0.25", circular=True)',
        ["--circular asks the model without noise; leave it out, or --smooth"],
    ),
    (
        "se.evaluate(TOY, DATA, official=True)",
        ["--official: only a transformers checkpoint has an official 8-bit path"],
    ),
    ('se.evaluate(TOY, DATA, domain="pixels")', ["domain: 'pixels' is not a choice; known: canvas, file"]),
    ("se.evaluate(TOY, DATA, domain=None)", ["domain must be 'canvas' or 'file', got None"]),
    ("se.evaluate(TOY, DATA, domain=3)", ["domain must be 'canvas' or 'file', got 3"]),
    ("se.evaluate(TOY, DATA, batch_size=0)", ["--batch-size 0: write a number from 1 to 65536, or auto"]),
    ("se.evaluate(TOY, DATA, batch_size=-1)", ["--batch-size -1: write a number from 1 to 65536, or auto"]),
    ('se.evaluate(TOY, DATA, batch_size="x")', ["batch_size must be a whole number, 'auto' or None, got 'x'"]),
    ("se.evaluate(TOY, DATA, batch_size=1.5)", ["batch_size must be a whole number, 'auto' or None, got 1.5"]),
    ("se.evaluate(TOY, DATA, batch_size=10**9)", ["--batch-size 1000000000: write a number from 1 to 65536, or auto"]),
    ("se.evaluate(TOY, DATA, batch_size=True)", ["batch_size must be a whole number, 'auto' or None, got True"]),
    ('se.evaluate(TOY, DATA, seed="x")', ["seed must be a whole number, got 'x'"]),
    ("se.evaluate(TOY, DATA, seed=1.5)", ["seed must be a whole number, got 1.5"]),
    ("se.evaluate(TOY, DATA, seed=None)", ["seed must be a whole number, got None"]),
    ('se.evaluate(TOY, DATA, seed=float("nan"))', ["seed must be a whole number, got nan"]),
    (
        'se.evaluate(TOY, DATA, ray="")',
        ["--ray : write local, auto or HOST:PORT; start the command on a node of the cluster"],
    ),
    ("se.evaluate(TOY, DATA, ray=3)", ["ray must be a text or None, got 3"]),
    (
        "se.evaluate(TOY, DATA, workers=2)",
        ["--workers has no effect without --ray; --ray local starts them on this machine"],
    ),
    ('se.evaluate(TOY, DATA, out="file")', ["--out file: file is a file, not a folder"]),
    ('se.evaluate(TOY, DATA, out="file/x")', ["--out file/x:", "file is a file, not a folder"]),
    ('se.evaluate(TOY, DATA, out="")', ["--out .: not a run folder, it holds bad; name a new or empty folder"]),
    ("se.evaluate(TOY, DATA, out=3)", ["out must be a text, a path or None, got 3"]),
    (
        'se.evaluate(TOY, DATA, out="empty\\0")',
        ["out: a path has at most 4,096 characters, and NUL is none of them, got 'empty\\x00'"],
    ),
    ('se.evaluate(TOY, DATA, out="x"*5000)', ["out: a path has at most 4,096 characters"]),
    ('se.evaluate(TOY, DATA, out="bad")', ["bad: not a run folder, run.json cannot be read: 'schema'"]),
    (
        'se.evaluate(TOY, DATA, pseudonymize="gone")',
        ['--pseudonymize gone: cannot be read: No such file or directory; python -c "import secrets;'],
    ),
    ("se.evaluate(TOY, DATA, pseudonymize=3)", ["pseudonymize must be a text, a path or None, got 3"]),
    (
        'se.evaluate(TOY, DATA, pseudonymize="empty")',
        ['--pseudonymize empty: cannot be read: Is a directory; python -c "import secrets; print(sec'],
    ),
    ('se.evaluate(TOY, DATA, quantize="maybe")', ["quantize must be True or False, got 'maybe'"]),
    (
        "se.certify(TOY, DATA)",
        ["--sigma: write --sigma 0.25, say: it is the standard deviation of the noise in [0, 1] pixel units"],
    ),
    ("se.certify(TOY, DATA, sigma=0)", ["--sigma: sigma must be above 0, got 0"]),
    ("se.certify(TOY, DATA, sigma=-1)", ["--sigma: sigma must be above 0, got -1"]),
    (
        'se.certify(TOY, DATA, sigma=float("nan"))',
        ["--sigma: sigma: 'nan' is not a number; write one like 0.25 or 4/255"],
    ),
    (
        'se.certify(TOY, DATA, sigma=float("inf"))',
        ["--sigma: sigma: 'inf' is not a number; write one like 0.25 or 4/255"],
    ),
    ('se.certify(TOY, DATA, sigma="x")', ["--sigma: 'x' is not a number; write one like 0.25 or 4/255"]),
    ('se.certify(TOY, DATA, sigma="1/0")', ["--sigma: '1/0' is not a number; write one like 0.25 or 4/255"]),
    ('se.certify(TOY, DATA, sigma="")', ["--sigma: '' is not a number; write one like 0.25 or 4/255"]),
    ("se.certify(TOY, DATA, sigma=[0.25])", ["sigma must be a number, a text or None, got [0.25]"]),
    ("se.certify(TOY, DATA, sigma=True)", ["sigma must be a number, a text or None, got True"]),
    (
        "se.certify(TOY, DATA, sigma=0.25, n=0)",
        ["certify: n0 and n must lie between 1 and 100,000,000, got n0=100, n=0"],
    ),
    (
        "se.certify(TOY, DATA, sigma=0.25, n=-1)",
        ["certify: n0 and n must lie between 1 and 100,000,000, got n0=100, n=-1"],
    ),
    ("se.certify(TOY, DATA, sigma=0.25, n=1.5)", ["n must be a whole number or None, got 1.5"]),
    ('se.certify(TOY, DATA, sigma=0.25, n="x")', ["n must be a whole number or None, got 'x'"]),
    ('se.certify(TOY, DATA, sigma=0.25, n="1000")', ["n must be a whole number or None, got '1000'"]),
    (
        "se.certify(TOY, DATA, sigma=0.25, n=10**12)",
        ["certify: n0 and n must lie between 1 and 100,000,000, got n0=100, n=1000000000000"],
    ),
    ('se.certify(TOY, DATA, sigma=0.25, n=float("nan"))', ["n must be a whole number or None, got nan"]),
    (
        "se.certify(TOY, DATA, sigma=0.25, n0=0)",
        ["certify: n0 and n must lie between 1 and 100,000,000, got n0=0, n=1000"],
    ),
    ('se.certify(TOY, DATA, sigma=0.25, n0="x")', ["n0 must be a whole number or None, got 'x'"]),
    ("se.certify(TOY, DATA, sigma=0.25, n0=2.5)", ["n0 must be a whole number or None, got 2.5"]),
    ("se.certify(TOY, DATA, sigma=0.25, alpha=0)", ["certify: alpha must lie between 0 and 1, got 0"]),
    ("se.certify(TOY, DATA, sigma=0.25, alpha=1)", ["certify: alpha must lie between 0 and 1, got 1"]),
    ("se.certify(TOY, DATA, sigma=0.25, alpha=-1)", ["certify: alpha must lie between 0 and 1, got -1"]),
    ('se.certify(TOY, DATA, sigma=0.25, alpha="0.001")', ["alpha must be a number or None, got '0.001'"]),
    ('se.certify(TOY, DATA, sigma=0.25, alpha=float("nan"))', ["certify: alpha must lie between 0 and 1, got nan"]),
    (
        "se.certify(TOY, DATA, sigma=0.25, alpha=None, n=3)",
        ["certify: n=3 unanimous votes cannot certify anything at alpha=0.001; raise n or alpha"],
    ),
    ('se.certify(TOY, DATA, sigma=0.25, radii="")', ["--radii: name at least one radius, such as 0,0.5s,1s"]),
    ('se.certify(TOY, DATA, sigma=0.25, radii="x")', ["--radii: 'x' is not a number; write one like 0.25 or 4/255"]),
    ('se.certify(TOY, DATA, sigma=0.25, radii="-1")', ["--radii: a radius cannot be negative, got -1"]),
    ("se.certify(TOY, DATA, sigma=0.25, radii=[0, 0.5])", ["radii must be a text, got [0, 0.5]"]),
    ("se.certify(TOY, DATA, sigma=0.25, radii=0.5)", ["radii must be a text, got 0.5"]),
    ("se.certify(TOY, DATA, sigma=0.25, radii=None)", ["radii must be a text, got None"]),
    (
        'se.certify(TOY, DATA, sigma=0.25, noise="x")',
        ["--noise x: unknown noise 'x'; known: brightness, contrast, float32, gamma, gaussian, patch, uniform"],
    ),
    (
        'se.certify(TOY, DATA, sigma=0.25, noise="")',
        ["--noise : unknown noise ''; known: brightness, contrast, float32, gamma, gaussian, patch, uniform"],
    ),
    ("se.certify(TOY, DATA, sigma=0.25, noise=None)", ["noise must be a text, got None"]),
    ("se.certify(TOY, DATA, sigma=0.25, noise=3)", ["noise must be a text, got 3"]),
    (
        'se.certify(TOY, DATA, sigma=0.25, noise="gaussian:x=1")',
        ["--noise gaussian:x=1: unknown option 'x'; known: sigma"],
    ),
    (
        'se.certify(TOY, DATA, sigma=0.25, noise="patch")',
        ["--noise patch: has no --sigma: nothing is drawn, each band of columns votes once"],
    ),
    (
        'se.certify(TOY, DATA, noise="patch:size=0,band=4")',
        ["--noise patch:size=0,band=4: size is a number of pixels, at least 1 and at most 65,536, got 0"],
    ),
    (
        'se.certify(TOY, DATA, noise="patch:size=8,band=x")',
        ["--noise patch:size=8,band=x: band: 'x' is not a whole number"],
    ),
    (
        'se.certify(TOY, DATA, noise="patch:size=8,band=8", n=5)',
        ["--n: has no effect with --noise patch, which draws nothing: every band votes once"],
    ),
    (
        'se.certify(TOY, DATA, sigma=0.25, sampling="other")',
        ["sampling: 'other' is not a choice; known: fixed, sequential"],
    ),
    ("se.certify(TOY, DATA, sigma=0.25, sampling=None)", ["sampling must be 'fixed' or 'sequential', got None"]),
    (
        'se.certify(TOY, DATA, sigma=0.25, sampling="sequential", n0=3)',
        ["--n0: has no effect with --sampling sequential, which selects no class"],
    ),
    (
        'se.certify(TOY, DATA, sigma=0.25, sampling="sequential", stop_when_wrong=True)',
        ["--stop-when-wrong: has no effect with --sampling sequential, which asks for gold only"],
    ),
    (
        'se.certify(TOY, DATA, sigma=0.25, sampling="sequential", radii="0")',
        ["certify: sequential certificates need a radius above 0"],
    ),
    (
        'se.certify(TOY, DATA, sigma=0.25, sampling="sequential", radii="9s")',
        ["certify: radius 9s must lie between 0 and 8 sigma"],
    ),
    ('se.certify(TOY, DATA, sigma=0.25, option_order="x")', ["option_order: 'x' is not a choice; known: data, random"]),
    ("se.certify(TOY, DATA, sigma=0.25, option_order=None)", ["option_order must be 'data' or 'random', got None"]),
    ('se.certify(TOY, DATA, sigma=0.25, domain="x")', ["domain: 'x' is not a choice; known: canvas, file"]),
    (
        'se.certify(TOY, DATA, sigma=0.25, domain="file", noise="uniform")',
        ["--domain file --noise uniform: radii of the file are derived for gaussian only"],
    ),
    ('se.certify(TOY, DATA, sigma=0.25, falsify="x")', ["falsify must be True or False, got 'x'"]),
    ("se.plan(TOY, DATA)", ["plan: name what is to be planned, --sigma 0.25 or --attack pgd, or both"]),
    ("se.plan(TOY, DATA, sigma=0)", ["--sigma: sigma must be above 0, got 0"]),
    ('se.plan(TOY, DATA, sigma="x")', ["--sigma: 'x' is not a number; write one like 0.25 or 4/255"]),
    ("se.plan(TOY, DATA, sigma=0.25, pilot=0)", ["--pilot 0: write a number from 2 to 1000"]),
    ("se.plan(TOY, DATA, sigma=0.25, pilot=-1)", ["--pilot -1: write a number from 2 to 1000"]),
    ('se.plan(TOY, DATA, sigma=0.25, pilot="x")', ["pilot must be a whole number, got 'x'"]),
    ("se.plan(TOY, DATA, sigma=0.25, n=0)", ["plan: n0 and n must lie between 1 and 100,000,000, got n0=100, n=0"]),
    ('se.plan(TOY, DATA, sigma=0.25, n="x")', ["n must be a whole number, got 'x'"]),
    ("se.plan(TOY, DATA, sigma=0.25, alpha=3)", ["plan: alpha must lie between 0 and 1, got 3"]),
    ("se.plan(TOY, DATA, sigma=0.25, batch_size=0)", ["--batch-size 0: write a number from 1 to 65536"]),
    ('se.plan(TOY, DATA, sigma=0.25, batch_size="x")', ["batch_size must be a whole number or None, got 'x'"]),
    ('se.plan(TOY, DATA, attacks="pgd")', ["attacks must be a list (each element a text), got 'pgd'"]),
    (
        'se.plan(TOY, DATA, attacks=["x"])',
        ["--attack x: unknown attack 'x'; known: adaptive, apgd, art, clean, corrupt, fgsm, noise, o"],
    ),
    (
        'se.plan(TOY, DATA, attacks=["transfer:from=builtin:sft"])',
        ["--attack transfer:eps=4/255,from=builtin:sft,steps=10: cannot be timed here; plan pgd with as many steps"],
    ),
    (
        'se.plan(TOY, "nonesuch", sigma=0.25)',
        ["--data nonesuch: unknown kind 'nonesuch'; known: medr1, omnimedvqa, phantom, table"],
    ),
    ("se.plan(TOY, None, sigma=0.25)", ["data must be an instance of Choice, a text or a function, got None"]),
    (
        "se.plan(None, DATA, sigma=0.25)",
        ["a model has at least one of 'scores', 'vote', 'write', and NoneType has none"],
    ),
    ('se.plan(TOY, DATA, sigma=0.25, seed="x")', ["seed must be a whole number, got 'x'"]),
    (
        'se.check_model(TOY, canvas="x")',
        ["--canvas x: write HEIGHTxWIDTH with sides of 8 to 8192, such as 384x384, or 'native'"],
    ),
    (
        'se.check_model(TOY, canvas="0x0")',
        ["--canvas 0x0: write HEIGHTxWIDTH with sides of 8 to 8192, such as 384x384, or 'native'"],
    ),
    (
        'se.check_model(TOY, canvas="native")',
        ["--canvas native: there is no image here to take the size from; write HxW"],
    ),
    ("se.check_model(TOY, canvas=None)", ["canvas must be a text, got None"]),
    ("se.check_model(TOY, canvas=64)", ["canvas must be a text, got 64"]),
    ("se.check_model(TOY, canvas=(64, 64))", ["canvas must be a text, got (64, 64)"]),
    ('se.check_model(TOY, attack="pgd")', ["--attack has no effect without --planted"]),
    (
        'se.check_model(TOY, planted=True, attack="x")',
        ["--attack x: unknown attack 'x'; known: adaptive, apgd, art, clean, corrupt, fgsm, noise, o"],
    ),
    (
        'se.check_model(TOY, planted=True, attack="noise")',
        ["--attack noise:eps=4/255: --planted tests attacks that follow gradients of the model's scores"],
    ),
    ("se.check_model(TOY, planted=True, attack=3)", ["attack must be a text or None, got 3"]),
    ("se.check_model(None)", ["a model has at least one of 'scores', 'vote', 'write', and NoneType has none"]),
    ("se.check_model(3)", ["a model has at least one of 'scores', 'vote', 'write', and int has none"]),
    ('se.check_model("")', ["--model : no such folder, and not a hub id like org/model"]),
    (
        'se.check_model("builtin:stf")',
        ["--model builtin:stf: no such checkpoint ships with this package; did you mean 'sft'?"],
    ),
    (
        'se.merge_adapter(TOY, out="m")',
        ["python:safemed_eval.models.toy:brightness: is not an adapter; there is nothing to merge"],
    ),
    ('se.merge_adapter("builtin:sft", out="m")', ["builtin:sft: is not an adapter; there is nothing to merge"]),
    ('se.merge_adapter("gone", out="m")', ["--model gone: no such folder, and not a hub id like org/model"]),
    (
        'se.merge_adapter(None, out="m")',
        ["a model has at least one of 'scores', 'vote', 'write', and NoneType has none"],
    ),
    ('se.merge_adapter("builtin:sft", out=None)', ["out must be a text or a path, got None"]),
    ('se.merge_adapter("builtin:sft", out=3)', ["out must be a text or a path, got 3"]),
    ('se.evaluate(TOY, DATA, ray="local", workers=0)', ["--workers 0: write a number from 1 to 4096"]),
    ('se.evaluate(TOY, DATA, ray="local", workers="x")', ["workers must be a whole number or None, got 'x'"]),
    ('se.evaluate(TOY, DATA, ray="local", workers=4097)', ["--workers 4097: write a number from 1 to 4096"]),
    ('se.evaluate(TOY, DATA, ray="local", workers=2.5)', ["workers must be a whole number or None, got 2.5"]),
    ("se.evaluate()", ["evaluate: missing a required argument: 'model'; help(safemed_eval.evaluate) lists them"]),
    ("se.evaluate(TOY)", ["evaluate: missing a required argument: 'data'; help(safemed_eval.evaluate) lists them"]),
    (
        "se.evaluate(TOY, DATA, atacks=[])",
        ["evaluate: got an unexpected keyword argument 'atacks'; help(safemed_eval.evaluate) lists them"],
    ),
    ("se.certify(TOY, DATA, 0.25)", ["certify: too many positional arguments; help(safemed_eval.certify) lists them"]),
    ('se.load_data("phantom", limit=0)', ["--limit must be at least 1, got 0"]),
    ('se.load_data("phantom", limit=-1)', ["--limit must be at least 1, got -1"]),
    ('se.load_data("phantom", limit="x")', ["limit must be a whole number or None, got 'x'"]),
    ('se.load_data("phantom", limit=2.5)', ["limit must be a whole number or None, got 2.5"]),
    ('se.load_data("phantom", per_group=0)', ["--per-group must be at least 1, got 0"]),
    ('se.load_data("phantom", per_group="3")', ["per_group must be a whole number or None, got '3'"]),
    (
        'se.load_data("phantom", modality="PET")',
        ["--modality 'PET': the data has none; known: CT, Dermoscopy, Fundus Photography, MRI, Micro"],
    ),
    ('se.load_data("phantom", modality=3)', ["modality must be a text or a list (each element a text), got 3"]),
    ('se.load_data("phantom", modality=[3])', ["an element of modality must be a text, got 3"]),
    (
        'se.load_data("phantom", question_type="x")',
        ["--question-type 'x': the data has none; known: Anatomy Identification, Disease Diagnosis,"],
    ),
    (
        'se.load_data("phantom", canvas="x")',
        ["--canvas x: write HEIGHTxWIDTH with sides of 8 to 8192, such as 384x384, or 'native'"],
    ),
    ('se.load_data("phantom", canvas=64)', ["canvas must be a text or None, got 64"]),
    ('se.load_data("phantom", canvas=(64, 64))', ["canvas must be a text or None, got (64, 64)"]),
    (
        'se.load_data("phantom", canvas="0x0")',
        ["--canvas 0x0: write HEIGHTxWIDTH with sides of 8 to 8192, such as 384x384, or 'native'"],
    ),
    ('se.load_data("phantom", fit="crop")', ["fit: 'crop' is not a choice; known: pad, stretch"]),
    ('se.load_data("phantom", fit=None)', ["fit must be 'stretch' or 'pad', got None"]),
    ('se.load_data("phantom", skip_bad="yes")', ["skip_bad must be True or False, got 'yes'"]),
    ('se.load_data("phantom", shuffle_options="x")', ["shuffle_options must be a whole number or None, got 'x'"]),
    ('se.load_data("phantom", seed="x")', ["seed must be a whole number, got 'x'"]),
    ('se.load_data("phantom", root="gone")', ["--data-root has no effect on --data phantom"]),
    ('se.load_data("phantom", root=3)', ["root must be a text, a path or None, got 3"]),
    ('se.load_data("table:t.csv", root="gone")', ["--data-root gone: no such folder"]),
    (
        'se.load_data("table:t.csv", root="empty")',
        ["--data table:t.csv: 1 of 1 items cannot be used; fix them, or pass --skip-bad to run witho"],
    ),
    ('se.load_data("table:empty")', ["empty: a table is a .csv, .tsv or .jsonl file"]),
    ('se.load_data("table:")', ["--data table:: needs a path, --data table:PATH"]),
    ('se.load_data("table")', ["--data table: needs a path, --data table:PATH"]),
    ('se.load_data("omnimedvqa:gone")', ["--data omnimedvqa:gone: no such file or folder: gone"]),
    (
        'se.load_data("omnimedvqa:empty")',
        ["empty: not OmniMedVQA's raw layout, there is no QA_information/*/*.json in it"],
    ),
    ('se.load_data("medr1:file")', ["file: no Med-R1 split file, named like 'X-Ray_test.json', is there"]),
    ('se.load_data("phantom:images=0")', ["--data phantom: images must be at least 1, and at most 1,000,000, got 0"]),
    ('se.load_data("phantom:images=x")', ["--data phantom: images: 'x' is not a whole number"]),
    ('se.load_data("phantom:split=x")', ["--data phantom: split: 'x' is not a choice; known: test, train, validation"]),
    ('se.load_data("phantom:x=1")', ["--data phantom: unknown option 'x'; known: images, seed, split"]),
    ('se.load_data("phantm")', ["--data phantm: unknown kind 'phantm'; did you mean 'phantom'?"]),
    ("se.load_data(3)", ["spec must be a text, got 3"]),
    ("se.load_data(None)", ["spec must be a text, got None"]),
    ('se.load_data(Path("t.csv"))', ["spec must be a text, got PosixPath('t.csv')"]),
    ("se.load_data([])", ["spec must be a text, got []"]),
    ('se.load_data("table:" + "x" * 5000)', ["--data table:xxxxxxxxxxxxxxxxxxxx"]),
    ("se.Data.from_items([])", ["no item is left after --modality, --question-type, --per-group and --limit"]),
    ("se.Data.from_items(None)", ["items must be a list (each element an instance of Item), got None"]),
    ("se.Data.from_items(3)", ["items must be a list (each element an instance of Item), got 3"]),
    ('se.Data.from_items(["x"])', ["an element of items must be an instance of Item, got 'x'"]),
    ("se.Data.from_items([item(label=5)])", ["a: label 5 is not the index of on"]),
    ("se.Data.from_items([item(label=-1)])", ["a: label -1 is not the index of o"]),
    ("se.Data.from_items([item(), item()])", ["a: the id occurs twice; only the"]),
    ('se.Data.from_items([item(image="gone.png")])', ["(-"]),
    ('se.Data.from_items([item(image="file")])', ["a: not an image that can be read"]),
    ('se.Data.from_items([item(label="a")])', ["label must be a whole number, got 'a'"]),
    ('se.Data.from_items([item()], canvas="64x64")', ["canvas must be an instance of Canvas, got '64x64'"]),
    ("se.load_model(None)", ["a model has at least one of 'scores', 'vote', 'write', and NoneType has none"]),
    ('se.load_model("builtn:sft")', ["builtn is no kind of model: did you mean 'builtin'?"]),
    ('se.load_model("")', ["--model : no such folder, and not a hub id like org/model"]),
    (
        'se.load_model("builtin:x")',
        ["--model builtin:x: no such checkpoint ships with this package; known: at-grpo, sft"],
    ),
    ('se.load_model(TOY, device="gpu:x")', ["--device gpu:x: not a device; write auto, cpu, cuda or cuda:1"]),
    ("se.load_model(TOY, device=3)", ["device must be a text, got 3"]),
    ('se.load_model(TOY, dtype="float64")', ["dtype: 'float64' is not a choice"]),
    ('se.load_model("builtin:sft", dtype=torch.float16)', ["dtype must be 'auto', 'float32'", "got torch.float16"]),
    (
        'se.load_model("builtin:sft", readout="speak")',
        ["readout: 'speak' is not a choice; known: choice, generate, think-choice"],
    ),
    (
        'se.load_model("builtin:sft", template="gone")',
        ["--template gone: no such file, and no such template; known: instruct, letter, think, think-after"],
    ),
    ('se.load_model("builtin:sft", template=3)', ["template must be a text, an instance of Template or None, got 3"]),
    (
        'se.load_model("builtin:sft", readout="generate", max_new_tokens=0)',
        ["--readout generate: max_new_tokens must be at least 1, and at most 1,000,000, got 0"],
    ),
    (
        'se.load_model("builtin:sft", readout="generate", max_new_tokens="x")',
        ["max_new_tokens must be a whole number, got 'x'"],
    ),
    (
        'se.load_model("builtin:sft", readout="generate", temperature=-1)',
        ["--readout generate: temperature must not be below 0, got -1"],
    ),
    (
        'se.load_model("builtin:sft", readout="generate", temperature="hot")',
        ["temperature must be a number, got 'hot'"],
    ),
    (
        'se.load_model("builtin:sft", readout="generate", temperature=float("nan"))',
        ["--readout generate: temperature must not be below 0, got nan"],
    ),
    ('se.load_model("builtin:sft", seed="x")', ["seed must be a whole number, got 'x'"]),
    (
        'se.load_model("builtin:sft", denoiser="gone")',
        ["--denoiser gone: no such folder or file; name a folder, a *.pt2 file, or python:module:factory"],
    ),
    ('se.load_model("builtin:sft", denoiser=3)', ["denoiser must be a text or None, got 3"]),
    (
        'se.load_model("builtin:sft", base="gone")',
        ["--base gone: --model builtin:sft is not an adapter, and has no base"],
    ),
    ('se.load_model("builtin:sft", offline="maybe")', ["offline must be True or False, got 'maybe'"]),
    ('se.load_model("builtin:sft", trust_remote_code=1)', ["trust_remote_code must be True or False, got 1"]),
    ('se.load_model("python:")', ["--model python:: write python:package.module:factory"]),
    ('se.load_model("python:os")', ["--model python:os: write python:package.module:factory"]),
    ('se.load_model(Path("file"))', ["--model file: is a file; name the checkpoint's folder"]),
    (
        'se.load_model(("a", "b"))',
        ["a model that is loaded already is a pair (network, processor) of transformers, got (str, str)"],
    ),
    (
        "se.load_model((None, None))",
        ["a model that is loaded already is a pair (network, processor) of transformers, got (NoneType, NoneType)"],
    ),
    (
        "se.load_model(torch.nn.Linear(2, 2))",
        ["a model has at least one of 'scores', 'vote', 'write', and Linear has none"],
    ),
    ("se.load_model(lambda x: x)", ["a model has at least one of 'scores', 'vote', 'write', and function has none"]),
    ('se.report([], out="r")', ["report: name at least one run"]),
    ('se.report(None, out="r")', ["runs must be a list (each element an instance of Run, a text or a path), got None"]),
    (
        'se.report("gone", out="r")',
        ["runs must be a list (each element an instance of Run, a text or a path), got 'gone'"],
    ),
    (
        'se.report(Path("gone"), out="r")',
        ["runs must be a list (each element an instance of Run, a text or a path), got PosixPath('gone')"],
    ),
    ('se.report(["gone"], out="r")', ["gone: no such folder"]),
    ('se.report(["bad"], out="r")', ["bad: not a run folder, run.json cannot be read: 'schema'"]),
    (
        'se.report(["empty"], out="r")',
        ["empty: not a run folder, run.json cannot be read: [Errno 2] No such file or directory: 'empty/run.json'"],
    ),
    ('se.report(["file"], out="r")', ["file: is a file; name the run folder that it is in"]),
    ('se.report([3], out="r")', ["an element of runs must be an instance of Run, a text or a path, got 3"]),
    ('se.report([None], out="r")', ["an element of runs must be an instance of Run, a text or a path, got None"]),
    ('se.report(["A=gone"], out="r")', ["gone: no such folder"]),
    ('se.report(["=gone"], out="r")', ["=gone: write NAME=FOLDER, or the folder alone"]),
    ('se.report(["runs/e"], out="")', ["--out .: is no report, it holds bad; name a new or empty folder"]),
    ('se.report(["runs/e"], out="file")', ["--out file: is a file, not a folder"]),
    (
        'se.report(["runs/e"], out="empty2/x\\0")',
        ["out: a path has at most 4,096 characters, and NUL is none of them, got 'empty2/x\\x00'"],
    ),
    ('se.report(["runs/e"], out=3)', ["out must be a text or a path, got 3"]),
    (
        'se.report(["runs/e"], out="runs/e")',
        ["--out runs/e: is no report, it holds records.jsonl; name a new or empty folder"],
    ),
    ('se.report(["runs/e"], out="r", alpha=0)', ["--alpha 0: alpha must lie between 0 and 1"]),
    ('se.report(["runs/e"], out="r", alpha=2)', ["--alpha 2: alpha must lie between 0 and 1"]),
    ('se.report(["runs/e"], out="r", alpha="x")', ["alpha must be a number or None, got 'x'"]),
    ('se.report(["runs/e"], out="r", radii="x")', ["--radii: 'x' is not a number; write one like 0.25 or 4/255"]),
    ('se.report(["runs/e"], out="r", radii=[0])', ["radii must be a text or None, got [0]"]),
    (
        'se.report(["runs/e"], out="r", by="nonesuch")',
        ["--by nonesuch: the data have no such column; known: modality, question_type, source"],
    ),
    ('se.report(["runs/e"], out="r", by=3)', ["by must be a text or None, got 3"]),
    ('se.report(["runs/e"], out="r", images="x")', ["images must be True or False, got 'x'"]),
    ('se.report(["runs/e"], out="r", title=3)', ["title must be a text, got 3"]),
    ('se.report(["runs/e", "runs/e"], out="r")', ["runs/e: is given twice"]),
    ('se.compare("gone", "runs/e")', ["gone: no such folder"]),
    ('se.compare("runs/e", "gone")', ["gone: no such folder"]),
    ('se.compare("runs/e", "runs/e")', ["runs/e: is compared with itself; name the run of another checkpoint"]),
    ('se.compare("runs/e", "runs/c")', ["runs/e and runs/c cannot be compared; they were asked for different things:"]),
    ('se.compare("runs/e", "bad")', ["bad: not a run folder, run.json cannot be read: 'schema'"]),
    ('se.compare("runs/e", "file")', ["file: is a file; name the run folder that it is in"]),
    ('se.compare("runs/e", None)', ["candidate must be a text, a path or an instance of Run, got None"]),
    ('se.compare(3, "runs/e")', ["baseline must be a text, a path or an instance of Run, got 3"]),
    ('se.compare("runs/e", "runs/f", radii="x")', ["--radii: 'x' is not a number; write one like 0.25 or 4/255"]),
    ('se.compare("runs/e", "runs/f", radii=3)', ["radii must be a text or None, got 3"]),
    ('se.compare("runs/e", "runs/f", rules=3)', ["rules must be an instance of Rules or None, got 3"]),
    (
        'se.compare("runs/e", "runs/f", rules={"level": 2})',
        ["rules must be an instance of Rules or None, got {'level': 2}"],
    ),
    ('se.compare("runs/e", "runs/f", across_prompts="x")', ["across_prompts must be True or False, got 'x'"]),
    ('se.Run.read("gone")', ["gone: no such folder"]),
    ('se.Run.read("bad")', ["bad: not a run folder, run.json cannot be read: 'schema'"]),
    ('se.Run.read("file")', ["file: is a file; name the run folder that it is in"]),
    ("se.Run.read(None)", ["out must be a text or a path, got None"]),
    ("se.Run.read(3)", ["out must be a text or a path, got 3"]),
    (
        'se.Run.read("")',
        [".: not a run folder, but holds "],
    ),
    ('RUN.accuracy(by="x")', ["--by x: the data have no such column; known: modality, question_type, source"]),
    ("RUN.accuracy(by=3)", ["by must be a text or None, got 3"]),
    ("RUN.accuracy(by=[])", ["by must be a text or None, got []"]),
    ("RUN.curve()", ["toy: a run of evaluate has no certified curve; use accuracy() or plot()"]),
    ('CERT.curve(by="x")', ["by must be 'modality', 'question_type' or None, got 'x'"]),
    ("CERT.curve(by=3)", ["by must be 'modality', 'question_type' or None, got 3"]),
    ('CERT.at("x")', ["--radii: 'x' is not a number; write one like 0.25 or 4/255"]),
    ("CERT.at(3)", ["radii must be a text or None, got 3"]),
    ('CERT.at("-1")', ["--radii: a radius cannot be negative, got -1"]),
    ('RUN.grouped("x")', ["--by x: the data have no such column; known: modality, question_type, source"]),
    (
        'se.train("stf", "builtin:sft", DATA, out="m")',
        ["method must be 'sft', 'at-sft', 'grpo', 'at-grpo' or 'denoiser', got 'stf'"],
    ),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", steps=0)',
        ["train sft: steps must be at least 1, and at most 1,000,000,000, got 0"],
    ),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", steps="x")',
        ["train sft: steps must be a whole number or None, got 'x'"],
    ),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", steps=1.5)',
        ["train sft: steps must be a whole number or None, got 1.5"],
    ),
    ('se.train("sft", "builtin:sft", DATA, out="m", epochs=0)', ["train sft: epochs must be above 0, got 0"]),
    ('se.train("sft", "builtin:sft", DATA, out="m", epochs="x")', ["train sft: epochs must be a number, got 'x'"]),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", epochs=float("nan"))',
        ["train sft: epochs must be above 0, got nan"],
    ),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", batch_size=0)',
        ["train sft: batch_size must be at least 1, and at most 65,536, got 0"],
    ),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", batch_size="x")',
        ["train sft: batch_size must be a whole number, got 'x'"],
    ),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", learning_rate=-1)',
        ["train sft: learning_rate must be above 0, got -1"],
    ),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", learning_rate="x")',
        ["train sft: learning_rate must be a number or None, got 'x'"],
    ),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", learning_rate=float("nan"))',
        ["train sft: learning_rate must be above 0, got nan"],
    ),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", learning_rate=float("inf"))',
        ["train sft: learning_rate must be above 0, got inf"],
    ),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", weight_decay=-1)',
        ["train sft: weight_decay must be at least 0, got -1"],
    ),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", weight_decay=float("nan"))',
        ["train sft: weight_decay must be at least 0, got nan"],
    ),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", eps="4/255")',
        ["train sft: has no option eps; did you mean 'steps'?"],
    ),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", nonesuch=3)',
        ["train sft: has no option nonesuch; known: ablate, accumulate, batch_size, best, bf16, epoc"],
    ),
    ('se.train("sft", "builtin:sft", DATA, out="m", lora=3)', ["train sft: lora must be a text or None, got 3"]),
    ('se.train("sft", "builtin:sft", DATA, out="m", lora="r=0")', ["--lora: r and alpha must be at least 1"]),
    ('se.train("sft", "builtin:sft", DATA, out="m", lora="x")', ["--lora: 'x' is not key=value"]),
    ('se.train("sft", "builtin:sft", DATA, out="m", ablate="x")', ["--ablate: 'x' is not key=value"]),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", freeze="vision")',
        ["train sft: freeze must be a list (each element a text) or None, got 'vision'"],
    ),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", freeze=["x"])',
        ["train sft: freeze: 'x' is not a part; known: language, projector, vision"],
    ),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", freeze=3)',
        ["train sft: freeze must be a list (each element a text) or None, got 3"],
    ),
    ('se.train("sft", "builtin:sft", DATA, out="m", bf16="x")', ["train sft: bf16 must be True or False, got 'x'"]),
    ('se.train("sft", "builtin:sft", DATA, out="m", seed="x")', ["train sft: seed must be a whole number, got 'x'"]),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", noise_sigma=-1)',
        ["train sft: noise_sigma must be above 0, got -1"],
    ),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", noise_sigma="x")',
        ["--noise-sigma: 'x' is not a number; write one like 0.25 or 4/255"],
    ),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", noise_sigma=float("nan"))',
        ["train sft: noise_sigma must be above 0, got nan"],
    ),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", save_every=0)',
        ["train sft: save_every must be at least 1, and at most 1,000,000,000, got 0"],
    ),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", loader_workers=-1)',
        ["train sft: loader_workers must be in 0 to 256, got -1"],
    ),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", report_to="x")',
        ["--report-to x: not known; write wandb, tensorboard, mlflow, trackio, or none"],
    ),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", report_to=3)',
        ["train sft: report_to must be a text, a list (each element a text) or None, got 3"],
    ),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", eval_data="nonesuch")',
        ["--eval-data: nonesuch: unknown kind 'nonesuch'; known: medr1, omnimedvqa, phantom, table"],
    ),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", eval_data=3)',
        ["train sft: eval_data must be an instance of Data, an instance of Choice, a text, a function or None, got 3"],
    ),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", eval_every=0)',
        ["--eval-every: has no effect without --eval-data"],
    ),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", best="x")',
        ["train sft: best must be 'robust', 'clean', 'last' or None, got 'x'"],
    ),
    ('se.train("sft", "builtin:sft", DATA, out="m", keep=0)', ["train sft: keep must be at least 1, got 0"]),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", samples=-1)',
        ["train sft: samples must be at least 0, and at most 16, got -1"],
    ),
    (
        'se.train("sft", "builtin:sft", DATA, out="m", samples="x")',
        ["train sft: samples must be a whole number, got 'x'"],
    ),
    (
        'se.train("at-sft", "builtin:sft", DATA, out="m", eps=0)',
        ["train at-sft: eps must be above 0 and at most 100000, got 0"],
    ),
    (
        'se.train("at-sft", "builtin:sft", DATA, out="m", eps=-1)',
        ["train at-sft: eps must be above 0 and at most 100000, got -1"],
    ),
    (
        'se.train("at-sft", "builtin:sft", DATA, out="m", eps="x")',
        ["--eps: 'x' is not a number; write one like 0.25 or 4/255"],
    ),
    (
        'se.train("at-sft", "builtin:sft", DATA, out="m", eps=2)',
        ["train at-sft: eps=2 is more than all of [0, 1]; grey levels are written eps=4/255"],
    ),
    (
        'se.train("at-sft", "builtin:sft", DATA, out="m", eps=float("nan"))',
        ["train at-sft: eps must be above 0 and at most 100000, got nan"],
    ),
    (
        'se.train("at-sft", "builtin:sft", DATA, out="m", attack_steps=0)',
        ["train at-sft: steps must be at least 1, and at most 1,000,000, got 0"],
    ),
    (
        'se.train("at-sft", "builtin:sft", DATA, out="m", attack_share=2)',
        ["train at-sft: the share of attacked rows must be in (0, 1], got 2"],
    ),
    (
        'se.train("at-sft", "builtin:sft", DATA, out="m", norm="l1")',
        ["train at-sft: norm: 'l1' is not a choice; known: l2, linf"],
    ),
    (
        'se.train("at-sft", "builtin:sft", DATA, out="m", eps_warm_up=-1)',
        ["train at-sft: warm_up is a share of the training, in [0, 1], got -1"],
    ),
    (
        'se.train("at-sft", "builtin:sft", DATA, out="m", adversary="kl")',
        ["train at-sft: has no option adversary; known: ablate, accumulate, attack_share, attack_ste"],
    ),
    (
        'se.train("grpo", "builtin:sft", DATA, out="m", group_size=1)',
        ["train grpo: a group needs at least 2 completions to compare, got 1"],
    ),
    (
        'se.train("grpo", "builtin:sft", DATA, out="m", group_size="x")',
        ["train grpo: group_size must be a whole number, got 'x'"],
    ),
    ('se.train("grpo", "builtin:sft", DATA, out="m", beta=-1)', ["train grpo: beta must be at least 0, got -1"]),
    (
        'se.train("grpo", "builtin:sft", DATA, out="m", temperature=0)',
        ["train grpo: temperature must be above 0, got 0"],
    ),
    (
        'se.train("grpo", "builtin:sft", DATA, out="m", max_new_tokens=0)',
        ["train grpo: max_new_tokens must be at least 1, and at most 1,000,000, got 0"],
    ),
    (
        'se.train("grpo", "builtin:sft", DATA, out="m", readout="x")',
        ["train grpo: readout: 'x' is not a choice; known: generate, think-choice"],
    ),
    (
        'se.train("grpo", "builtin:sft", DATA, out="m", vllm="x")',
        ["--vllm: 'x' is not a mode; known: colocate, server"],
    ),
    (
        'se.train("grpo", "builtin:sft", DATA, out="m", loss="x")',
        ["train grpo: loss: 'x' is not a choice; known: bnpo, dapo, dr-grpo, grpo"],
    ),
    (
        'se.train("grpo", "builtin:sft", DATA, out="m", reward="x")',
        ["--reward x: write python:package.module:function, and perhaps ,weight=0.5 behind it"],
    ),
    (
        'se.train("grpo", "builtin:sft", DATA, out="m", reward=3)',
        ["train grpo: reward must be a text, a list (each element a text) or None, got 3"],
    ),
    (
        'se.train("grpo", "builtin:sft", DATA, out="m", resample_agreeing=-1)',
        ["train grpo: resample_agreeing must be in 0 to 100, got -1"],
    ),
    (
        'se.train("at-grpo", "builtin:sft", DATA, out="m", adversary="x")',
        ["train at-grpo: adversary must be 'letter', 'answer', 'reward', 'kl' or None, got 'x'"],
    ),
    (
        'se.train("at-grpo", "builtin:sft", DATA, out="m", kl_weight=-1)',
        ["train at-grpo: kl_weight and gain_weight have no effect without adversary kl"],
    ),
    (
        'se.train("at-grpo", "builtin:sft", DATA, out="m", gain_weight=float("nan"))',
        ["train at-grpo: kl_weight and gain_weight have no effect without adversary kl"],
    ),
    (
        'se.train("denoiser", "builtin:sft", DATA, out="m")',
        ["train denoiser: needs a sigma, that of the noise to remove: 0.25, say"],
    ),
    ('se.train("denoiser", "builtin:sft", DATA, out="m", sigma=0)', ["train denoiser: sigma must be above 0, got 0"]),
    (
        'se.train("denoiser", "builtin:sft", DATA, out="m", sigma="x")',
        ["--sigma: 'x' is not a number; write one like 0.25 or 4/255"],
    ),
    (
        'se.train("denoiser", "builtin:sft", DATA, out="m", sigma=float("inf"))',
        ["train denoiser: sigma=inf is more than all of [0, 1]; grey levels are written sigma=25/255"],
    ),
    (
        'se.train("denoiser", "builtin:sft", DATA, out="m", sigma=0.25, width=0)',
        ["train denoiser: width must be at least 1, and at most 4,096, got 0"],
    ),
    (
        'se.train("denoiser", "builtin:sft", DATA, out="m", sigma=0.25, blocks="x")',
        ["train denoiser: blocks must be a whole number, got 'x'"],
    ),
    (
        'se.train("denoiser", "builtin:sft", DATA, out="m", sigma=0.25, mse_share=2)',
        ["train denoiser: mse_share is a share of the steps, in [0, 1], got 2"],
    ),
    (
        'se.train("sft", TOY, DATA, out="m")',
        ["--data phantom:images=2: is the test split, which checkpoints are compared on; train on ph"],
    ),
    ('se.train("sft", "gone", DATA, out="m")', ["--model gone: no such folder, and not a hub id like org/model"]),
    (
        'se.train("sft", None, DATA, out="m")',
        ["a model has at least one of 'scores', 'vote', 'write', and NoneType has none"],
    ),
    (
        'se.train("sft", "builtin:sft", "nonesuch", out="m")',
        ["--data nonesuch: unknown kind 'nonesuch'; known: medr1, omnimedvqa, phantom, table"],
    ),
    (
        'se.train("sft", "builtin:sft", None, out="m")',
        ["data must be an instance of Data, an instance of Choice, a text or a function, got None"],
    ),
    (
        'se.train("sft", "builtin:sft", "phantom:split=test,images=2", out="m")',
        ["--data phantom:split=test,images=2: is the test split, which checkpoints are compared on;"],
    ),
    ('se.train("sft", "builtin:sft", DATA, out=None)', ["out must be a text or a path, got None"]),
    ('se.train("sft", "builtin:sft", DATA, out=3)', ["out must be a text or a path, got 3"]),
    (
        'se.train("sft", "builtin:sft", "phantom:split=train,images=2", out="file")',
        ["--out file: file is a file, not a folder"],
    ),
    (
        'se.train("sft", "builtin:sft", DATA)',
        ["train: missing a required ", "argument: 'out'; help(safemed_eval.train) lists them"],
    ),
    (
        'se.train(3, "builtin:sft", DATA, out="m")',
        ["method must be 'sft', 'at-sft', 'grpo', 'at-grpo' or 'denoiser', got 3"],
    ),
    ("se.to_art(None, None)", ["model must be an instance of Bindable, got None"]),
    ('se.to_art(TOY, "q")', ["model must be an instance of Bindable, got 'python:safemed_eval.models.toy:brightness'"]),
    ('se.report(["runs/c"], out="r", alpha=2)', ["--alpha 2: alpha must lie between 0 and 1"]),
    ('se.report(["runs/c"], out="r", radii="x")', ["--radii: 'x' is not a number; write one like 0.25 or 4/255"]),
    ('se.report(["runs/c"], out="r", radii="-1")', ["--radii: a radius cannot be negative, got -1"]),
    ('se.Data.from_items([item(image=Path("x.png"))])', ["image must be a text, got PosixPath('x.png')"]),
    ('se.Data.from_items([item(root=".")])', ["root must be a path, got '.'"]),
    ("se.Data.from_items([item(id=3)])", ["id must be a text, got 3"]),
    ('se.Data.from_items([item(question="q")])', ["question must be an instance of Question, got 'q'"]),
    ('se.Data.from_items([item(question=Question(text=3, options=("a","b")))])', ["a: the question is empty"]),
    ('se.Data.from_items([item(question=Question(text="q", options=("a",)))])', ["a: needs 2 to 26 options (option_"]),
    ('se.Data.from_items([item(question=Question(text="q", options=()))])', ["a: needs 2 to 26 options (option_"]),
    (
        'se.Data.from_items([item(question=Question(text="q", options=("a", 3)))])',
        ["a: an option is empty, or not tex"],
    ),
    ('se.Data.from_items([item(question=Question(text="", options=("a", "b")))])', ["a: the question is empty"]),
    ("se.Data.from_items([item(label=True)])", ["label must be a whole number, got True"]),
]

LATE = ("python:nonesuch", "python:os:", "toy:nonesuch", "cuda:99", "float64", 'attn="x"', 'device_map="x"')
"""Parts of the calls that load something before they fail."""

CASES = [
    Case(
        name=f"call {expression:.100}",
        argv=(),
        call=expression,
        says=says,
        make=files,
        early=not any(part in expression for part in LATE),
    )
    for expression, says in CALLS
]
