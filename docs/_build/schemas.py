"""A page for each JSON schema of docs/schemas: a table of its fields."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "schemas"
SCHEMAS = {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in sorted(FOLDER.glob("*.json"))}
NAV = [{schema["title"].removeprefix("safemed-eval "): f"reference/schemas/{name}.md"} for name, schema in SCHEMAS.items()]


def pages() -> dict[str, str | bytes]:
    return {f"reference/schemas/{name}.md": _page(name, schema) for name, schema in SCHEMAS.items()}


def _page(name: str, schema: dict[str, Any]) -> str:
    rows = [f"| `{path}` | {kind} | {text} |" for path, kind, text in fields(schema, schema)]
    text = [
        f"# {schema['title']}",
        f"The fields of [{name}.json](../../schemas/{name}.json); [JSON](../../json.md) says what holds for all of them.",
        "\n".join(["| field | type | |", "|---|---|---|", *rows]),
    ]
    return "\n\n".join(text)


def fields(schema: dict[str, Any], whole: dict[str, Any], path: str = "") -> Iterator[tuple[str, str, str]]:
    """Path, type and description of every field below a schema. `[]` stands for each of a list, `*` for any name."""
    schema = resolved(schema, whole)
    named = {**schema.get("properties", {})}
    if isinstance(schema.get("additionalProperties"), dict):
        named["*"] = schema["additionalProperties"]
    for pattern in schema.get("patternProperties", {}).values():
        named["*"] = pattern
    for name, field in named.items():
        below = f"{path}.{name}" if path else name
        there = resolved(field, whole)
        yield below, _kind(there), there.get("description", "").replace("|", "\\|")
        yield from fields(there, whole, below)
    if isinstance(schema.get("items"), dict):
        yield from fields(schema["items"], whole, f"{path}[]")
    for option in (*schema.get("anyOf", ()), *schema.get("oneOf", ())):
        yield from fields(option, whole, path)


def resolved(schema: dict[str, Any], whole: dict[str, Any]) -> dict[str, Any]:
    """The schema that a reference within the same file leads to, with what stands beside the reference."""
    if "$ref" not in schema:
        return schema
    there: Any = whole
    for part in schema["$ref"].removeprefix("#/").split("/"):
        there = there[part]
    return {**resolved(there, whole), **{key: value for key, value in schema.items() if key != "$ref"}}


def _kind(schema: dict[str, Any]) -> str:
    if "const" in schema or "enum" in schema:
        return ", ".join(f"`{json.dumps(value)}`" for value in schema.get("enum", [schema.get("const")]))
    kinds = schema.get("type", [])
    options = [kind for option in (*schema.get("anyOf", ()), *schema.get("oneOf", ())) for kind in [_kind(option)]]
    return " or ".join([kinds] if isinstance(kinds, str) else [*kinds, *options])
