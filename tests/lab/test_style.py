"""All text of a page, and of code on it, has a contrast of 4.5 : 1 on every ground it stands on."""

import re

import pytest
from pygments.styles import get_style_by_name

from katlab import plots
from katlab.lab import cells, display

CSS = (display.STYLE.parent / "templates" / "style.css").read_text()
TEXTS = ("ink", "soft", "faint", "accent", "held", "broken")
GROUNDS = ("paper", "wash", "code", "alarm")


def colours(scheme: str) -> dict[str, str]:
    light = re.search(r":root \{(.*?)\}", CSS, re.S)[1]
    dark = re.search(r"prefers-color-scheme: dark\) \{\s*:root \{(.*?)\}", CSS, re.S)[1]
    chosen = {"light": light, "dark": light + dark}[scheme]
    return dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", chosen))


def luminance(colour: str) -> float:
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def test_contrast_by_hand():
    assert contrast("#000000", "#ffffff") == pytest.approx(21)
    assert contrast("#777777", "#ffffff") == pytest.approx(4.48, abs=0.01)


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("ground", GROUNDS)
@pytest.mark.parametrize("text", TEXTS)
def test_text_is_readable_on_every_ground(scheme, ground, text):
    own = colours(scheme)
    assert contrast(own[text], own[ground]) >= 4.5


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_highlighted_code_is_readable(scheme):
    ground = colours(scheme)["wash"]
    style = get_style_by_name(cells.STYLES[scheme])
    for token, how in style:
        if how["color"] and not how["bgcolor"] and not {"Error", "Whitespace"} & {*token}:
            assert contrast(f"#{how['color']}", ground) >= 4.5, (token, how["color"])


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_marks_of_figures_stand_out(scheme):
    ground = colours(scheme)["paper"]
    drawn = {k: v for k, v in vars(plots).items() if isinstance(v, str) and v.startswith("#")}
    for name, colour in drawn.items():
        if name != "INK":  # turns with the ground
            assert contrast(colour, ground) >= 3, name
    assert len(set(drawn.values())) == len(drawn)


def test_every_colour_of_a_page_is_one_of_the_sheet():
    outside = re.sub(r":root \{.*?\}", "", CSS, flags=re.S)
    assert set(re.findall(r"#[0-9a-f]{3,6}\b", outside)) <= {"#code", "#fff"}
    assert "opacity" not in outside
