"""The keywords verifier: every check on its own, and the classifier."""

import pytest

from katlab.rewards import classifier, grade, keywords


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


def test_the_classifier_is_a_switch_and_unscorable_when_missing(tmp_path):
    path = tmp_path / "classifier.json"
    good = ["the ball is in the cup", "it is in cup A", "look in the left cup"]
    poor = ["who knows", "no idea at all", "who can tell"]
    assert classifier.fit(good + poor, [1] * 3 + [0] * 3, path) == 1.0
    reference = {"classifier": {"path": str(path)}}
    verdict = keywords.verify("in the cup", reference)
    assert verdict.correct is True and verdict.detail["score"] > 0.5
    assert keywords.verify("who knows at all", reference).correct is False
    missing = keywords.verify("in the cup", {"classifier": {"path": str(tmp_path / "none")}})
    assert missing.correct is None and "fit one" in missing.reason


def test_a_folder_of_a_sequence_classifier_serves_too(tmp_path):
    transformers = pytest.importorskip("transformers")
    tokenizers = pytest.importorskip("tokenizers")
    words = tokenizers.models.WordLevel({"[UNK]": 0, "cup": 1, "ball": 2}, unk_token="[UNK]")
    inner = tokenizers.Tokenizer(words)
    inner.pre_tokenizer = tokenizers.pre_tokenizers.Whitespace()
    tokenizer = transformers.PreTrainedTokenizerFast(tokenizer_object=inner, unk_token="[UNK]")
    tokenizer.save_pretrained(tmp_path)
    config = transformers.BertConfig(
        vocab_size=3,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=1,
        intermediate_size=8,
        max_position_embeddings=16,
        num_labels=2,
    )
    transformers.BertForSequenceClassification(config).save_pretrained(tmp_path)
    score = classifier.score("ball cup", tmp_path)
    assert 0.0 < score < 1.0 and score == classifier.score("ball cup", tmp_path)
