"""Pages: one self-contained HTML file from small pieces. No scripts, no fonts or pictures from elsewhere; it can be mailed.

Text given to any function is escaped; what these functions return is `Html` and is put in as it is.
"""

from __future__ import annotations

import base64
import html
import io
import re
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from PIL import Image

from retrodict._version import __version__
from retrodict.files import write_text
from retrodict.reports.clips import write_clip
from retrodict.reports.style import CSS, VARIABLES


class Html(str):
    """Text that is HTML already."""


def tag(name: str, *content: str, **attributes: str) -> Html:
    """An element; `class_` is written `class`, other underscores become dashes."""
    written = "".join(f' {k.rstrip("_").replace("_", "-")}="{html.escape(v)}"' for k, v in attributes.items())
    return Html(f"<{name}{written}>{join(content)}</{name}>")


def join(content: Iterable[str]) -> Html:
    """Pieces one after the other, plain text escaped."""
    return Html("".join(piece if isinstance(piece, Html) else html.escape(piece, quote=False) for piece in content))


def page(title: str, lead: str, *content: str) -> Html:
    """A whole document: title, one sentence that says what was found, then sections."""
    body = tag("main", tag("h1", title), tag("p", lead, class_="lead"), *content, tag("footer", f"retrodict {__version__}"))
    meta = Html('<meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">')
    head = join([meta, tag("title", title), Html(f"<style>{CSS}</style>")])
    return Html(f'<!doctype html>\n<html lang="en"><head>{head}</head>\n<body>{body}</body></html>\n')


def write(path: str | Path, document: Html) -> Path:
    """Write a page; it is there whole or not at all."""
    write_text(Path(path), document)
    return Path(path)


# ---- text ----------------------------------------------------------------------------------------------------------------


def section(title: str, *content: str) -> Html:
    """A titled part of a page."""
    return tag("section", tag("h2", title), *content)


def paragraph(*content: str) -> Html:
    return tag("p", *content)


def bullets(items: Iterable[str]) -> Html:
    return tag("ul", *(tag("li", item) for item in items))


def note(text: str, kind: str = "") -> Html:
    """A sentence set apart; `good` or `bad` colours its edge."""
    return tag("div", text, class_=f"note {kind}".strip())


def command(line: str) -> Html:
    """A line for the shell."""
    return tag("pre", tag("code", line))


def verdict(holds: bool) -> Html:
    """`holds` or `does not hold`."""
    return tag("span", "holds" if holds else "does not hold", class_="good-text" if holds else "bad-text")


# ---- numbers -------------------------------------------------------------------------------------------------------------


def facts(values: Mapping[str, str]) -> Html:
    """The few numbers that matter, large: what it is -> its value."""
    return tag("div", *(tag("div", tag("b", value), tag("span", name)) for name, value in values.items()), class_="facts")


def table(header: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> Html:
    """A table of texts; a column that holds numbers in every row stands to the right."""
    body = [list(row) for row in rows]
    right = [bool(body) and all(_is_number(row[i]) for row in body) for i in range(len(header))]

    def line(cells: Sequence[str], kind: str) -> Html:
        return tag("tr", *(tag(kind, c, class_="number") if r else tag(kind, c) for c, r in zip(cells, right, strict=True)))

    parts = [tag("thead", line(header, "th")), tag("tbody", *(line(row, "td") for row in body))]
    if caption:
        parts.insert(0, tag("caption", caption))
    return tag("div", tag("table", *parts), class_="scroll")


def _is_number(text: str) -> bool:
    return text == "" or bool(re.match(r"[<>≤≥+-]?\s?\d", html.unescape(re.sub("<[^>]*>", "", text))))


# ---- pictures ------------------------------------------------------------------------------------------------------------


def picture(drawn: Figure | np.ndarray, caption: str = "") -> Html:
    """A matplotlib figure (as SVG in the page's own colours) or one frame, uint8 (H, W, C)."""
    inside = _svg(drawn) if isinstance(drawn, Figure) else _image(drawn)
    return tag("figure", inside, *([tag("figcaption", caption)] if caption else []))


def film(frames: Iterable[np.ndarray], fps: float, caption: str = "", width: int = 320) -> Html:
    """A clip of frames uint8 (H, W, C) inside the page, shown over and over, without sound."""
    with tempfile.TemporaryDirectory() as folder:
        path = write_clip(frames, Path(folder) / "clip.mp4", fps, width=width)
        source = _data("video/mp4", path.read_bytes())
    video = Html(f'<video src="{source}" autoplay loop muted playsinline controls width="{width}"></video>')
    return tag("figure", video, *([tag("figcaption", caption)] if caption else []))


def row(*figures: str) -> Html:
    """Figures beside each other where the window is wide enough."""
    return tag("div", *figures, class_="row")


def _svg(figure: Figure) -> Html:
    # Text stays text, so that it takes the page's font, can be selected and follows light and dark.
    import matplotlib

    target = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "retrodict"}):
        figure.savefig(target, format="svg", transparent=True, bbox_inches="tight", pad_inches=0.03, metadata={"Date": None})
    drawn = target.getvalue()
    drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn[drawn.index("<svg") :], flags=re.DOTALL)
    for colour, variable in VARIABLES.items():
        drawn = drawn.replace(colour, variable)
    return Html(drawn)


def _image(frame: np.ndarray) -> Html:
    target = io.BytesIO()
    Image.fromarray(frame.squeeze(-1) if frame.shape[-1] == 1 else frame).save(target, format="PNG", optimize=True)
    return Html(f'<img class="pixels" alt="" src="{_data("image/png", target.getvalue())}">')


def _data(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode()}"
