"""The Markdown pages as tests read them: their blocks of code, and the commands that they print."""

import ast
import re
import shlex
from pathlib import Path

from experiments.readme import PAGES, ROOT

OWN = {"discriminant": ROOT / "README.md"} | dict.fromkeys(
    ("stripes", "filters", "thumbnail", "correlation"), ROOT / "CONTRIBUTING.md"
)  # modules that a reader saves, and the page that prints them


def code_blocks(page: Path) -> list[str]:
    """The Python of a page."""
    return re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.DOTALL)


def block_with(page: Path, text: str) -> str:
    """The one block of a page that has ``text`` in it."""
    (block,) = [block for block in code_blocks(page) if text in block]
    return block


def save_printed_modules(folder: Path) -> None:
    """Saves the methods that the pages print under the names that they give them."""
    for name, page in OWN.items():
        (folder / f"{name}.py").write_text(block_with(page, f"def {name}("), encoding="utf-8")


def printed_commands() -> dict[str, list[list[str]]]:
    """The words of every ``python -m experiments…`` of pages and experiments' docstrings, by where it stands."""
    texts = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
    for path in sorted((ROOT / "experiments").rglob("*.py")):
        texts[str(path.relative_to(ROOT))] = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    shown = re.compile(r"^    (python -m experiments\S*.*)$|`(python -m experiments[^`]*)`", re.MULTILINE)
    commands = {
        place: [shlex.split(line or inline, comments=True)[2:] for line, inline in shown.findall(text)]
        for place, text in texts.items()
    }
    return {place: words for place, words in commands.items() if words}
