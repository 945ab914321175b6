"""Figures on a page: vector graphics in the page's own colours, with their files beneath.

The text and axes of house.mplstyle's figures are drawn in the colours of `INKS`, which become
those of the page, so that a figure is read on a light ground, on a dark one and on paper.

Usage:  pictures.html(folder, "loss", "05_step_srpo/")
"""

import base64
import json
import re
from pathlib import Path

from markupsafe import Markup

from katlab.lab.display import html as filled

INKS = {"#0f172a": "ink", "#334155": "ink", "#475569": "soft", "#e2e8f0": "line"}
PATH, DIGITS = re.compile(r' d="[^"]+"'), re.compile(r"(\.\d\d)\d+")  # finer than any eye
FORMATS = ("svg", "png", "csv")


def shown(folder: Path) -> dict[str, dict]:
    """The figures of a stage folder: title, takeaway, alt and hero by name."""
    path = folder / "figures" / "index.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}


def html(folder: Path, name: str, base: str = "", anchor: str = "") -> Markup:
    """A figure of a stage folder, named by `anchor`; `base` leads from its page to the folder."""
    text = shown(folder)[name]
    return filled(
        "picture",
        anchor=anchor or name,
        image=image(folder, name),
        takeaway=text["takeaway"],
        page=f"{base}report.html#{name}" if base else f"#{name}",
        files={
            form.upper(): f"{base}figures/{name}.{form}"
            for form in FORMATS
            if (folder / "figures" / f"{name}.{form}").is_file()
        },
    )


def image(folder: Path, name: str) -> Markup:
    """The graphic itself: its SVG, within the page; a PNG for a run that has nothing else."""
    text = shown(folder)[name]
    alt = text.get("alt") or text["title"]
    svg = folder / "figures" / f"{name}.svg"
    if svg.is_file():
        return _inline(svg.read_text(encoding="utf-8"), alt)
    data = base64.b64encode(svg.with_suffix(".png").read_bytes()).decode()
    return Markup('<img alt="{}" src="data:image/png;base64,{}">').format(alt, data)


def _inline(svg: str, alt: str) -> Markup:
    body = svg[svg.index("<svg") :]
    head, body = body.split(">", 1)
    width, height = re.findall(r'viewBox="0 0 (\S+) (\S+)"', head)[0]
    body = re.sub(r"<metadata>.*?</metadata>", "", body, flags=re.S)
    body = PATH.sub(lambda path: DIGITS.sub(r"\1", path[0]), body)
    used = set(re.findall(r"#([\w-]+)[\")]", body))
    body = re.sub(r' id="([\w-]+)"', lambda m: m[0] if m[1] in used else "", body)
    for colour, ink in INKS.items():
        body = body.replace(colour, f"var(--{ink}, {colour})")
    label = Markup.escape(alt)
    size = f'viewBox="0 0 {width} {height}" width="{float(width) * 4 / 3:.0f}"'
    names = 'xmlns="http://www.w3.org/2000/svg" xmlns:xlink="http://www.w3.org/1999/xlink"'
    return Markup(f'<svg role="img" aria-label="{label}" {size} {names}>{body}')
