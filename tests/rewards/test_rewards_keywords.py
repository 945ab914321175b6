"""The keywords verifier: every check on its own."""

import pytest

from katlab.rewards import grade, keywords


@pytest.mark.parametrize(
    ("answer", "reference", "correct"),
    [
        ("It is in cup C.", {"all": ["cup C"]}, True),
        ("It is in Cup  c", {"all": ["cup C"]}, True),
        ("It is in cup CD", {"all": ["cup C"]}, False),
        ("It is not in cup C", {"all": ["cup C"]}, False),
        ("not cup B but cup C", {"all": ["cup C"]}, True),
        ("cup A, cup B, cup C", {"all": ["cup C"], "none": ["cup A", "cup B"]}, False),
        ("red", {"any": ["red", "blue"]}, True),
        ("green", {"any": ["red", "blue"]}, False),
        ("red and green", {"overlap": {"keywords": ["red", "green", "blue"], "min": 0.6}}, True),
        ("red", {"overlap": {"keywords": ["red", "green", "blue"], "min": 0.6}}, False),
        ("Yes: [x]", {"contains": ["[x]"], "starts": "Yes", "ends": "]"}, True),
        ("yes: [x]", {"starts": "Yes"}, False),
        ("a-a-a", {"count": {"a": 3}}, True),
        ("a-a-a", {"count": {"a": [0, 2]}}, False),
        ("one two three", {"words": 3}, True),
        ("one two", {"words": [3, 9]}, False),
        ("One. Two!", {"sentences": 2, "lines": 1}, True),
        ('{"a": [1, 2]}', {"json": True}, True),
        ('```json\n{"a": 1.0}\n```', {"json": {"a": 1}}, True),
        ('{"a": true}', {"json": {"a": 1}}, False),
        ("{'a': 1}", {"json": True}, False),
        ("[" * 100_000, {"json": True}, False),
        ("", {"none": ["x"]}, False),
    ],
)
def test_keyword_checks(answer, reference, correct):
    assert keywords.verify(answer, reference).correct is correct


@pytest.mark.parametrize("reference", [None, {}, {"al": ["x"]}, "cup C", {"all": "cup C"}])
def test_an_unusable_keywords_reference(reference):
    assert grade([("keywords", "x", reference)])[0].correct is None
