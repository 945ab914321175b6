"""Equations in a thought: what holds, what is named, what is read too little of to judge."""

import pytest

from katlab.tasks.equations import false_equations

TRUE = [
    "10-3+2=9",
    "2*3+4=10",
    "1.5+2=3.5",
    "100-1+1=100",
    "2+3*4=14",
    "20 - 3 × 4 ÷ 2 = 14",
    "-3+5=2",
    "5 − 8 = −3",
    "2*-3=-6",
    "1,000+1=1,001",
    "007+1=8",
    "0.1+0.2=0.3",
    "10/3=3.33",
    "2/3=0.67",
    "3.7*2.2=8.1",
    "4/0=1",
    "- 3+5=8",
    "- 3+5=2",
    "1+1=2=2",
    "$3+4=7$",
]
FALSE = {
    "2+2=5": ["2+2=5"],
    "10-3+2=9, so 9*2=19": ["9*2=19"],
    "First I read it. 3+4=8": ["3+4=8"],
    "1. 3+4=8": ["3+4=8"],
    "Check: 12-5=6, yes.": ["12-5=6"],
    "- 3+5=9": ["- 3+5=9"],
    "1.5+2=3.6": ["1.5+2=3.6"],
    "10/3=3.34": ["10/3=3.34"],
    "3.7*2.2=8.2": ["3.7*2.2=8.2"],
    "1+1=3\n2+2=4\n3+3=7": ["1+1=3", "3+3=7"],
    "It is $3+4=8$.": ["3+4=8"],
    r"\(3+4=8\)": ["3+4=8"],
    "So 3 + 4 = 8.": ["3 + 4 = 8"],
    "then -3+5=3": ["-3+5=3"],
}
UNREAD = [  # each holds as a whole, or may
    "x + 3 - 1 = 4",
    "f(2) + 1 = 5",
    "x=3+4=8",
    "2x+3=7",
    "(2+3)*4=20",
    "2^3+1=9",
    "2**3+1=9",
    "3·4+1=13",
    "2+4=3·2",
    "2+4=3 x 2",
    r"2+4=3 \times 2",
    "2+4=3(2)",
    "2+4=3!",
    "1,5*2=3",
    "2,5+1=3,5",
    "1+1=2+5=7",
    "7+6=1 mod 12",
    "7+6=1 (mod 12)",
    "20/3=6.66...",
    "log 8 + 1 = 4",
    "5 times 3+4=19",
    "we gave 3+4=8 apples",
    "the sum of 5 and 3+4=12",
    "5\n- 3+5=8",
    "3+4",
    "a3+4=7",
    "3+4=8th",
    "",
]


@pytest.mark.parametrize("text", TRUE)
def test_what_holds_is_let_pass(text):
    assert false_equations(text) == []


@pytest.mark.parametrize("text", FALSE)
def test_what_does_not_hold_is_named(text):
    assert false_equations(text) == FALSE[text]


@pytest.mark.parametrize("text", UNREAD)
def test_what_may_be_part_of_something_longer_is_let_pass(text):
    assert false_equations(text) == []


def test_a_thought_that_runs_on_is_read_in_good_time():
    """Linear: a chain of a hundred thousand terms is neither recursed into nor tried twice."""
    assert false_equations("1" + "+1" * 100_000 + "=100001") == []
    assert false_equations("1 + " * 100_000) == [] == false_equations("1" * 100_000)
    assert false_equations("9" * 5000 + "+1=2") == [], "more digits than Python reads"
