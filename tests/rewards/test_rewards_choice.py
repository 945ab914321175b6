"""The choice verifier: which letter an answer submits."""

import pytest
from rewards.examples import ABCD, PLANETS

from katlab import UserError
from katlab.rewards import choice, grade


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        ("b", "B"),
        ("(B)", "B"),
        ("**B**", "B"),
        ("B.", "B"),
        ("B. Mars", "B"),
        ("B) it is red", "B"),
        (r"\boxed{B}", "B"),
        (r"$\boxed{\text{B}}$", "B"),
        (r"\boxed{(B)}", "B"),
        (r"\boxed{B. Mars}", "B"),
        ("The answer is B.", "B"),
        ("The answer is (B), since Mars is red", "B"),
        ("The correct answer is: B", "B"),
        ("Answer: B", "B"),
        ("Answer: b", "B"),
        ("answer is B because of A", "B"),
        ("answer is B. Note A is close.", "B"),
        ("Option B is correct.", "B"),
        ("B is the right answer", "B"),
        ("Not B, so C.", "C"),
        ("It is not B, the answer is D", "D"),
        ("A and C are wrong, therefore B.", "B"),
        ("The answer is A. No, wait, the answer is B.", "B"),
        ("A cat sat on the mat", None),
        ("A planet, I think", None),
        ("The answer is a cat", None),
        ("I am not sure", None),
        ("A. Venus\nB. Mars\nC. A moon\nD. Io", None),
        ("(A) Venus (B) Mars (C) A moon (D) Io", None),
        ("Answer: A or B", None),
        ("Answer: A\nAnswer: B", None),
        (r"\boxed{A} \boxed{B}", None),
        ("Answer seems to be A", None),
        ("not B", None),
        ("", None),
    ],
)
def test_the_submitted_letter(answer, letter):
    for gold in "ABCD":
        verdict = choice.verify(answer, {"answer": gold, **ABCD})
        assert verdict.correct is (gold == letter), (gold, verdict)


def test_a_letter_outside_the_options_is_wrong():
    verdict = choice.verify("The answer is E", {"answer": "B", **ABCD})
    assert verdict.correct is False and "not an option" in verdict.reason
    assert choice.verify("E", {"answer": "E", "options": 5}).correct is True
    assert choice.verify("E", "E").correct is True


def test_an_options_text_submits_its_letter():
    assert choice.verify("mars", {"answer": "B", **PLANETS}).correct is True
    assert choice.verify(r"\boxed{\text{Mars}}", {"answer": "B", **PLANETS}).correct is True
    assert choice.verify("A moon", {"answer": "C", **PLANETS}).correct is True
    assert choice.verify("A moon", {"answer": "A", **PLANETS}).correct is False


def test_after_the_thought_an_empty_answer_is_wrong():
    completion = "<think_on>\n<think>\nB\n</think>\n\n<answer>\n\n</answer>"
    assert choice.verify(completion, {"answer": "B", **ABCD}).correct is False


def test_the_reports_rule_is_a_switch():
    rule = {"answer": "A", **ABCD, "rule": "first_letter"}
    assert choice.verify("A cat", rule).correct is True  # its fault, kept on purpose
    assert choice.verify("not B, so C", rule | {"answer": "C"}).correct is False
    with pytest.raises(UserError, match="anchored"):
        choice.verify("A", rule | {"rule": "first"})


@pytest.mark.parametrize("reference", [None, {}, {"answer": "F", **ABCD}, {"answer": 2}])
def test_an_unusable_choice_reference(reference):
    with pytest.raises(UserError):
        choice.verify("A", reference)
    assert grade([("choice", "A", reference)])[0].correct is None
