"""Exchanging the judge: a decision that follows its words, one that ignores them, one between."""

import gates
import pandas as pd
import pytest

from katlab import lab, template
from katlab.evaluation import judges, probes
from katlab.evaluation.judges import NONE, OTHER, OWN, SHUFFLED

WORDS = lab.load_profile("nano").prompts
AUTO = gates.gated().query("system == 'final' and arm == 'auto'")
ROWS = [
    {"id": key, "messages": [{"role": "user", "content": f"{level}"}], "tools": None}
    for key, level in zip(AUTO["id"], AUTO["difficulty"], strict=True)
]


def said(head: str) -> str:
    return head.rpartition("<judge>\n")[2].removesuffix("\n</judge>\n\n")


def hard(head: str) -> bool:
    return int(head.partition("user\n")[2].partition("<|im_end|>")[0]) > 3


def follows(head: str) -> float:
    """Decides by the last word of the judge; without one thinks."""
    return 0.0 if "think off" in said(head) else 1.0


def ignores(head: str) -> float:
    return float(hard(head))


def sways(head: str) -> float:
    """Believes a judge that says think off, and thinks about hard queries alone."""
    return follows(head) * ignores(head)


def exchanged(monkeypatch, tokenizer, decide, auto=AUTO) -> pd.DataFrame:
    monkeypatch.setattr(judges, "p_after", lambda _model, _tok, heads: [decide(h) for h in heads])
    return judges.probe(None, tokenizer, ROWS, auto, WORDS, seed=0)


def test_the_judge_is_kept_exchanged_removed_and_shuffled(monkeypatch, tokenizer):
    """Each head is the prompt, the words and the closed judge; the decision is next."""
    heads = []
    found = exchanged(monkeypatch, tokenizer, lambda head: heads.append(head) or 1.0)
    assert len(found) == len(heads) == 4 * gates.PROMPTS
    first = found[found["id"] == "q0"].set_index("judge")["words"]  # difficulty 1: think off.
    assert first[OWN] == "think off." and first[OTHER] == WORDS.forced_on and first[NONE] == ""
    assert heads[0].endswith("<|im_start|>assistant\n<judge>\nthink off.\n</judge>\n\n")
    shuffled = found[found["judge"] == SHUFFLED]["words"]
    assert sorted(shuffled) == sorted(AUTO["judge"])  # each judge stands before one query
    assert template.MODES == ("on", "off") and set(found["names"].dropna()) == {"on", "off"}


@pytest.mark.parametrize(
    ("decide", "taken", "kept_without", "meaning"),
    [
        (follows, "100%", "40%", "the words make the decision"),
        (ignores, "0%", "100%", "the words do not touch the decision"),
        (sways, "40%", "100%", "the words sway the decision and do not make it"),
    ],
)
def test_the_table_says_whether_the_decision_follows_the_words(
    decide, taken, kept_without, meaning, monkeypatch, tokenizer
):
    """Thinks at difficulties 4 and 5, 40 % of the queries, and its own judges say so."""
    found = exchanged(monkeypatch, tokenizer, decide)
    table = judges.table(found, gates.gated())
    assert table.loc[OWN, "takes the mode named"].startswith("100%")
    assert table.loc[OTHER, "takes the mode named"].startswith(taken)
    assert table.loc[NONE, "takes the mode named"] == "–"
    assert table.loc[NONE, "decides as after its own"].startswith(kept_without)
    assert judges.told(found).endswith(f"{meaning}.")
    assert f"decides as after its own in {kept_without}" in judges.told(found)


def test_accuracy_and_tokens_are_those_of_the_mode_taken(monkeypatch, tokenizer):
    """Told the other way: easy queries think, right at 60 tokens; hard ones do not, wrong at 20."""
    table = judges.table(exchanged(monkeypatch, tokenizer, follows), gates.gated())
    assert table.loc[OWN, ["accuracy", "tokens"]].tolist() == ["100.0%", "36.0"]
    assert table.loc[OTHER, ["accuracy", "tokens"]].tolist() == ["60.0%", "44.0"]
    assert table.loc[NONE, ["think-on rate", "tokens"]].tolist() == ["100%", "60.0"]
    assert (table["prompts"] == gates.PROMPTS).all()


def test_a_judge_that_says_the_opposite_is_exchanged_for_what_it_did_not_say(
    monkeypatch, tokenizer
):
    swapped = gates.swapped_judge().query("system == 'final' and arm == 'auto'")
    found = exchanged(monkeypatch, tokenizer, ignores, swapped)
    pair = found.pivot(index="id", columns="judge", values="names")
    assert (pair[OWN] != pair[OTHER]).all()
    own = judges.table(found, gates.gated()).loc[OWN]
    assert own["takes the mode named"].startswith("0%")


def test_a_model_that_decides_nothing_has_no_judge_to_exchange(monkeypatch, tokenizer):
    undecided = AUTO.assign(mode=None)
    found = exchanged(monkeypatch, tokenizer, ignores, undecided)
    assert found.empty and judges.table(found, gates.gated()).empty
    assert judges.told(found).startswith("The final model decides nothing")


def test_the_next_decision_is_that_of_each_text_whatever_shares_its_batch(model, tokenizer):
    texts = [f"{'7+' * n}8" for n in (40, 3, 17, 1, 28)]
    alone = [probes.p_after(model, tokenizer, [text])[0] for text in texts]
    assert probes.p_after(model, tokenizer, texts, batch_size=2) == pytest.approx(alone, abs=1e-5)
    assert len({round(p, 4) for p in alone}) > 2
    assert probes.p_after(model, tokenizer, []) == []
