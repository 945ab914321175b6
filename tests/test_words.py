"""Words in which models are asked stand in the profile; the method has none of its own."""

import re
from pathlib import Path

import pytest

import katlab
from katlab.lab import load_profile

PACKAGE = Path(katlab.__file__).parent
METHOD = (
    *("dual_regime_data", "cold_start", "evaluation", "case_studies", "step_srpo"),
    *("mtp_distillation", "generation", "arms.py", "teachers.py"),
)
GRAMMAR = ("level ([1-5", "multi_turn|tool_use")


PRIVATE = re.compile(r"(?<![a-z])(rungs?|ladders?|lend\w*|lent|borrow\w*|mend\w*)(?![a-z])")


def test_names_and_messages_are_the_fields_own():
    """A cache hit is no borrowing, a remedy no mend, a level of isolation no rung."""
    for path in sorted(PACKAGE.rglob("*.py")):
        found = PRIVATE.findall(path.read_text().lower())
        assert not found, f"{path.name} says {found}"


def spoken() -> list[str]:
    """Every phrase of nano's [prompts], without what is filled in and without its full stop."""
    words = vars(load_profile("nano").prompts)
    said = [words[name] for name in ("tag", "rationale", "forced_on", "forced_off")]
    said += [phrase for mode in ("on", "off") for phrase in words[f"directive_{mode}"]]
    return [re.split(r"[.,{]", phrase)[0].strip().lower() for phrase in said]


@pytest.mark.parametrize("part", METHOD)
def test_no_words_and_no_grammar_of_nano_in_the_method(part):
    phrases = [*spoken(), *GRAMMAR]
    assert {"tag it", "why think", "think deeper", "work it out"} <= set(phrases)
    place = PACKAGE / part
    for path in sorted(place.rglob("*.py")) if place.is_dir() else [place]:
        if path.name == "example.py":  # rollouts written by hand, to be read
            continue
        text = path.read_text().lower()
        found = [phrase for phrase in phrases if phrase in text]
        assert not found, f"{path.name} says {found}"
