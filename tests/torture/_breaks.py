"""Small changes to a source file, each of which a test should notice."""

from __future__ import annotations

import ast
import copy
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

_COMPARE: dict[type[ast.cmpop], tuple[type[ast.cmpop], ...]] = {
    ast.Lt: (ast.LtE, ast.GtE),
    ast.LtE: (ast.Lt, ast.Gt),
    ast.Gt: (ast.GtE, ast.LtE),
    ast.GtE: (ast.Gt, ast.Lt),
    ast.Eq: (ast.NotEq,),
    ast.NotEq: (ast.Eq,),
    ast.In: (ast.NotIn,),
    ast.NotIn: (ast.In,),
    ast.Is: (ast.IsNot,),
    ast.IsNot: (ast.Is,),
}
_ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.Div,
    ast.Div: ast.Mult,
    ast.FloorDiv: ast.Mult,
    ast.Mod: ast.Mult,
    ast.Pow: ast.Mult,
    ast.BitAnd: ast.BitOr,
    ast.BitOr: ast.BitAnd,
}
_PAIRS = (
    *(("min", "max"), ("minimum", "maximum"), ("amin", "amax"), ("argmin", "argmax"), ("clamp_min", "clamp_max")),
    *(("any", "all"), ("floor", "ceil"), ("ppf", "isf"), ("cdf", "sf"), ("log1p", "log"), ("logsumexp", "amax")),
    *(("clopper_pearson_lower", "clopper_pearson_upper"), ("floor_to", "ceil_to"), ("isna", "notna")),
    *(("ROUND_FLOOR", "ROUND_CEILING"), ("logical_and", "logical_or"), ("mean", "sum"), ("median", "mean")),
)
_LOOKS = (
    *("capsize", "capthick", "color", "elinewidth", "figsize", "fontsize", "labelpad", "linestyle"),
    *("linewidth", "lw", "markersize", "ms", "xytext", "zorder", "pad_inches", "help"),
)
"""Arguments that decide how a figure looks, or help texts: no test should hold them."""
_TWINS = dict(_PAIRS) | {b: a for a, b in reversed(_PAIRS)}

REASONS = Path(__file__).with_name("survivors.json")
"""Why a change that no test notices does no harm, by its name."""
NOTICED = ("killed", "timeout")
"""What a result says of a change that a test has noticed."""


@dataclass(frozen=True, kw_only=True)
class Break:
    """One change of one file."""

    module: str
    where: str
    """The function or class that it is in."""
    line: int
    before: str
    after: str
    repeat: int
    """Which one it is, where a function has several that read alike."""
    number: int
    """Its place among all changes of the file, for `broken`."""

    @property
    def name(self) -> str:
        again = f" ({self.repeat + 1})" if self.repeat else ""
        return f"{self.module} {self.where}: {self.before} -> {self.after}{again}"

    @property
    def order(self) -> str:
        """A rank among all that does not change when others come or go."""
        return hashlib.sha256(self.name.encode()).hexdigest()


def breaks(file: Path, module: str) -> list[Break]:
    """All changes of a file."""
    found: list[Break] = []
    seen: dict[tuple[str, str, str], int] = {}
    for number, (where, old, new) in enumerate(_changes(ast.parse(file.read_text()))):
        before, after = (_words(node) for node in (old, new))
        repeat = seen.get((where, before, after), 0)
        seen[where, before, after] = repeat + 1
        line = old.lineno  # type: ignore[attr-defined]
        found.append(
            Break(module=module, where=where, line=line, before=before, after=after, repeat=repeat, number=number)
        )
    return found


def broken(file: Path, number: int) -> ast.Module:
    """The file's syntax tree with this change made."""
    tree = ast.parse(file.read_text())
    _, old, new = next(change for place, change in enumerate(_changes(tree)) if place == number)

    class Put(ast.NodeTransformer):
        def visit(self, node: ast.AST) -> ast.AST:
            return ast.copy_location(new, old) if node is old else self.generic_visit(node)

    return ast.fix_missing_locations(Put().visit(tree))


def _words(node: ast.AST) -> str:
    text = " ".join(ast.unparse(node).split())
    return text if len(text) <= 90 else f"{text[:87]}..."


def _changes(tree: ast.Module) -> Iterator[tuple[str, ast.AST, ast.AST]]:
    yield from _inside(tree, "module")


def _inside(node: ast.AST, where: str) -> Iterator[tuple[str, ast.AST, ast.AST]]:
    """(function, node, what replaces it), for all that is run and changes what comes out: no message, no type."""
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "decorator_list", "type_params"):
            continue
        for child in value if isinstance(value, list) else [value]:
            if not isinstance(child, ast.AST) or _says(child):
                continue
            for new in _instead(child):
                yield where, child, new
            if isinstance(child, (ast.FunctionDef, ast.ClassDef)):
                yield from _inside(child, child.name if where == "module" else f"{where}.{child.name}")
            elif not isinstance(child, ast.Raise):
                yield from _inside(child, where)


def _says(node: ast.AST) -> bool:
    """Whether it is only there for people or for the type checker."""
    if isinstance(node, ast.If) and isinstance(node.test, ast.Name) and node.test.id == "TYPE_CHECKING":
        return True
    if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
        return True
    if isinstance(node, ast.keyword) and node.arg in {"strict", *_LOOKS}:
        return True
    return isinstance(node, (ast.Assert, ast.JoinedStr, ast.Import, ast.ImportFrom))


def _instead(node: ast.AST) -> Iterator[ast.AST]:
    if isinstance(node, ast.Compare) and len(node.ops) == 1:
        for operator in _COMPARE[type(node.ops[0])]:
            yield _with(node, ops=[operator()])
    elif isinstance(node, ast.BoolOp):
        yield _with(node, op=ast.Or() if isinstance(node.op, ast.And) else ast.And())
    elif isinstance(node, ast.BinOp) and type(node.op) in _ARITHMETIC:
        yield _with(node, op=_ARITHMETIC[type(node.op)]())
    elif isinstance(node, ast.UnaryOp):
        yield copy.deepcopy(node.operand)
    elif isinstance(node, ast.IfExp):
        yield _with(node, body=copy.deepcopy(node.orelse), orelse=copy.deepcopy(node.body))
    elif isinstance(node, ast.Constant) and isinstance(node.value, bool):
        yield ast.Constant(not node.value)
    elif isinstance(node, ast.Constant) and isinstance(node.value, int):
        yield ast.Constant(node.value + 1)
        yield ast.Constant(node.value - 1)
    elif isinstance(node, ast.Constant) and isinstance(node.value, float):
        yield ast.Constant(node.value * 2 or 1.0)
        yield ast.Constant(node.value / 2 or -1.0)
    elif isinstance(node, ast.Attribute) and node.attr in _TWINS:
        yield _with(node, attr=_TWINS[node.attr])
    elif isinstance(node, ast.Name) and node.id in _TWINS:
        yield _with(node, id=_TWINS[node.id])
    elif isinstance(node, ast.Return) and node.value is not None and ast.unparse(node.value) != "None":
        yield ast.Return(ast.Constant(None))
    elif isinstance(node, (ast.AugAssign, ast.Raise)) or (
        isinstance(node, ast.Expr) and isinstance(node.value, ast.Call)
    ):
        yield ast.Pass()
    elif isinstance(node, ast.Break):
        yield ast.Continue()


def _with(node: ast.AST, **changes: object) -> ast.AST:
    new = copy.deepcopy(node)
    for name, value in changes.items():
        setattr(new, name, value)
    return new
