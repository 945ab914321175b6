"""Wishes for a mode: enough wordings, and those tested are never trained on."""

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from katlab import lab, template
from katlab.tasks import wishes


@pytest.mark.parametrize("profile", ["nano", "smol-135m", "proxy-1.5b", "target-40b"])
def test_a_profile_has_fifty_wordings_of_each_wish_and_holds_twenty_out(profile):
    words = lab.load_profile(profile).prompts
    for mode in template.MODES:
        said = vars(words)[f"directive_{mode}"]
        trained, tested = wishes.trained(words, mode), wishes.tested(words, mode)
        assert len(said) >= 50 and len(trained) >= 30 and len(tested) >= 20
        assert sorted(trained + tested) == sorted(said)
        assert all(len(sentence.split()) <= 6 for sentence in said)


def test_no_two_wishes_are_one_but_for_case_and_punctuation():
    words = lab.load_profile("nano").prompts
    said = Counter(map(wishes.plain, words.directive_on + words.directive_off))
    assert set(said.values()) == {1}


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("Think step by step.", "think step-by-step", True),
        ("Don't think!", "Dont think", True),
        ("Don't think.", "Do not think.", False),
    ],
)
def test_case_and_punctuation_make_no_other_wish(one, other, same):
    assert (wishes.plain(one) == wishes.plain(other)) is same


def test_an_own_list_is_split_by_nobodys_choice():
    own = ["Alpha.", "Beta.", "alpha!", "Gamma.", "Delta.", "Epsilon."]
    trained, tested = wishes.split(own)
    assert wishes.split(own[::-1]) == (trained[::-1], tested[::-1])
    assert ("Alpha." in tested) == ("alpha!" in tested)
    assert len({wishes.plain(one) for one in tested}) == 2


@pytest.mark.parametrize("few", [["Reason."], ["Reason.", "Think."], ["Go.", "go", "Stop."]])
def test_fewer_than_three_are_trained_on_and_tested(few):
    assert wishes.split(few) == (few, few)


@given(st.lists(st.text(max_size=6), min_size=1, max_size=30))
def test_no_wish_is_on_both_sides_and_none_is_lost(sentences):
    trained, tested = wishes.split(sentences)
    assert trained and tested
    if trained != tested:
        assert not {*map(wishes.plain, trained)} & {*map(wishes.plain, tested)}
        assert sorted(trained + tested) == sorted(sentences)


def test_every_sentence_is_said_as_often_as_the_next():
    said = wishes.spread(["a", "b", "c"], 8, seed=0)
    assert sorted(Counter(said).values()) == [2, 3, 3]
    assert said == wishes.spread(["a", "b", "c"], 8, seed=0)
    assert said != wishes.spread(["a", "b", "c"], 8, seed=1)
    assert len(set(wishes.spread(["a", "b", "c"], 2, seed=0))) == 2
