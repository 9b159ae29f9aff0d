"""One look for all figures: colours, type, and the way a figure is made and written, without pyplot's state."""

from __future__ import annotations

import contextlib
import functools
import io
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from metarep_jax.files import atomic_write

if TYPE_CHECKING:
    from matplotlib.figure import Figure

INK, QUIET, FAINT = "#1b1f24", "#5b6470", "#dfe3e8"
# Okabe and Ito's colours, told apart with any colour vision; their yellow is left out: it is too light for lines.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#7A5195", "#6B6B6B")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "*")
DPI = 160
# Beside DejaVu, which matplotlib ships: fonts that many systems have, for scripts that DejaVu lacks.
OTHER_FONTS = ("Noto Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Hiragino Sans", "Microsoft YaHei", "Malgun Gothic")


@contextlib.contextmanager
def drawing(path: Path | str, width: float, height: float, **layout: Any) -> Iterator[Figure]:
    """A blank figure of ``width`` × ``height`` inches, written to ``path`` at the block's end, whole or not at all.

    ``layout`` goes to matplotlib's constrained layout, such as ``wspace``.
    """
    import matplotlib
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    style: Any = {
        "font.family": list(_families()),
        "font.size": 9,
        "text.color": INK,
        "text.parse_math": False,
        "axes.edgecolor": QUIET,
        "axes.labelcolor": QUIET,
        "axes.titlecolor": INK,
        "axes.titlesize": 9.5,
        "axes.titleweight": "bold",
        "axes.titlelocation": "left",
        "axes.linewidth": 0.8,
        "axes.spines.top": False,
        "axes.spines.right": False,
        "axes.axisbelow": True,
        "grid.color": FAINT,
        "grid.linewidth": 0.8,
        "xtick.color": QUIET,
        "ytick.color": QUIET,
        "xtick.labelsize": 8,
        "ytick.labelsize": 8,
        "lines.solid_capstyle": "round",
        "savefig.facecolor": "white",
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(width, height), dpi=DPI, layout=ConstrainedLayoutEngine(**layout))
        yield figure
        content = io.BytesIO()
        figure.savefig(content, format="png", metadata={"Software": None})
    atomic_write(path, content.getvalue())


def printable(text: str) -> str:
    """``text`` with every character that no font at hand has written as its code point, such as U+72AC."""
    return "".join(c if c.isspace() or ord(c) in _characters() else f"U+{ord(c):04X}" for c in text)


def shortened(text: str, length: int) -> str:
    """``text`` made printable; when too long, its middle left out, since names often end in what differs."""
    text = printable(text)
    if len(text) <= length:
        return text
    head = (length - 1) // 2
    return f"{text[:head]}…{text[-(length - 1 - head) :]}"


def spread(places: list[float], gap: float, low: float, high: float) -> list[float]:
    """Positions of labels: near ``places``, at least ``gap`` apart, within [low, high] where they fit."""
    order = sorted(range(len(places)), key=places.__getitem__)
    gap = min(gap, (high - low) / max(len(places) - 1, 1))
    moved = [places[i] for i in order]
    for _ in range(200):
        for k in range(len(moved) - 1):
            overlap = gap - (moved[k + 1] - moved[k])
            if overlap > 0:
                moved[k] -= overlap / 2
                moved[k + 1] += overlap / 2
        moved = [min(max(place, low + k * gap), high - (len(moved) - 1 - k) * gap) for k, place in enumerate(moved)]
    placed = [0.0] * len(places)
    for k, i in enumerate(order):
        placed[i] = moved[k]
    return placed


@functools.cache
def _families() -> tuple[str, ...]:
    from matplotlib import font_manager

    installed = {font.name for font in font_manager.fontManager.ttflist}
    return ("DejaVu Sans", *(name for name in OTHER_FONTS if name in installed))


@functools.cache
def _characters() -> frozenset[int]:
    from matplotlib import font_manager

    found: set[int] = set()
    for family in _families():
        font: Any = font_manager.get_font(font_manager.findfont(family))
        found |= set(font.get_charmap())
    return frozenset(found)
