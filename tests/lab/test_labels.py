"""Figures have names and units in words; the glossary is one line a term."""

import math

import pytest

from katlab.lab import words


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (0.91, "%", "91.0 %"),
        (0.0133, "points", "+1.3 points"),
        (40.41, "tokens", "40.4 tokens"),
        (804544.0, "", "804,544"),
        (5.000000, "", "5"),
        (math.nan, "%", "–"),
        (None, "", "–"),
    ],
)
def test_a_figure_is_rounded_and_has_its_unit(value, unit, expected):
    assert words.told(value, unit) == expected


def test_a_number_in_a_name_stands_in_the_label():
    label, unit = words.label("03_mtp_distillation", "kd_on_3")
    assert label == "right when thinking, KD alone, difficulty 3" and unit == "%"


def test_a_headline_tells_the_first_figures_of_the_stage_in_words():
    record = {"id": "demo/05_step_srpo", "headline": {"steps": 30, "accuracy": 0.91, "note": "x"}}
    assert words.headline(record) == "accuracy 91.0 % · training steps 30"


def test_a_figure_without_a_label_is_still_no_variable_name():
    assert words.label("05_step_srpo", "some_new_figure") == ("some new figure", "")


def test_the_glossary_is_one_sentence_a_term():
    for term, meaning in words.glossary().items():
        assert meaning.endswith(".") and "\n" not in meaning, term
    assert {"MTP", "KD", "ULD", "cold start", "votes", "coin", "oracle", "regret", "judge"} <= {
        *words.glossary()
    }
