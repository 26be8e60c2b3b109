"""A notebook as a page: text as it stands, code, and the outputs that are stored in it."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path
from typing import Any


def pages(notebook: Path) -> dict[str, str | bytes]:
    """The page of a notebook, and its pictures, by their places in the site."""
    cells = json.loads(notebook.read_text(encoding="utf-8"))["cells"]
    text, files = [], {}
    for number, cell in enumerate(cells):
        source = "".join(cell["source"])
        if cell["cell_type"] == "markdown":
            text.append(source)
        else:
            kind, source = ("bash", source.removeprefix("%%bash\n")) if source.startswith("%%bash") else ("python", source)
            text.append(f"```{kind}\n{source}\n```")
            for place, output in enumerate(cell["outputs"]):
                shown, picture = _output(output, f"{notebook.stem}-{number}-{place}.png")
                text.append(shown)
                files |= {f"tutorials/{name}": content for name, content in picture.items()}
    title, _, below = text[0].partition("\n\n")
    download = f"[Download the notebook]({notebook.name}){{ download }}"
    return {f"tutorials/{notebook.stem}.md": "\n\n".join([title, download, below, *text[1:]]), **files}


def _output(output: Any, name: str) -> tuple[str, dict[str, bytes]]:
    """An output as Markdown, with its picture if it is one."""
    data = output.get("data", {})
    if "image/png" in data:
        return f"![What the cell above draws]({name})", {name: base64.b64decode("".join(data["image/png"]))}
    if "text/html" in data:
        table = re.sub(r"<style.*?</style>", "", "".join(data["text/html"]), flags=re.DOTALL)
        return f'<div class="output" markdown="0">\n{table}\n</div>', {}
    text = "".join(output.get("text") or data.get("text/plain", "")).rstrip()
    return f'``` {{ .text .output }}\n{text}\n```', {}
