"""What a judge's words do to the decision: kept, exchanged, removed, shuffled (ours).

The final model's own judge of every query is written before it again, or the other mode's, or none,
or another query's; then the model takes the decision, and the likelier mode counts. Nothing is
sampled. The other mode's words are those that the forced arms are prefilled with.

    found = judges.probe(model, tok, rows, auto, stage.config.prompts, stage.seed)
    stage.table(judges.table(found, arms), judges.told(found))
"""

import random
import re
from pathlib import Path

import pandas as pd
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from katlab import template
from katlab.evaluation.controls import MEASURES, per_prompt
from katlab.evaluation.probes import p_after
from katlab.evaluation.routing import NAMED, pick
from katlab.evaluation.systems import AFTER
from katlab.intervals import bootstrap, percent
from katlab.lab import read_jsonl

OWN, OTHER, NONE, SHUFFLED = "its own", "of the other mode", "none", "of another query"
COLUMNS = ["id", "judge", "words", "names", "p_on", "mode"]
OTHERS = {"on": "off", "off": "on"}


def probe(
    model: PreTrainedModel,
    tok: PreTrainedTokenizerBase,
    rows: list[dict],
    auto: pd.DataFrame,
    prompts,
    seed: int,
) -> pd.DataFrame:
    """One row per query that `auto` (`arms.run_arm`'s) decided, and judge shown before it.

    Columns: id, judge (whose words: `OWN`, `OTHER`, `NONE`, `SHUFFLED`), words, names (the one mode
    that they name by prompts.rationale_pattern, or None), p_on, mode (the likelier one).
    """
    by_id = {row["id"]: row for row in rows}
    decided = auto[auto["mode"].notna()].drop_duplicates("id")
    own = [words or "" for words in decided["judge"]]
    order = random.Random(seed).sample(range(len(own)), len(own))
    after = dict(zip(order, order[1:] + order[:1], strict=True))  # one cycle: no query keeps its
    shown: list[tuple] = []
    for i, (key, mode) in enumerate(zip(decided["id"], decided["mode"], strict=True)):
        other = OTHERS[_names(own[i], prompts) or mode]
        theirs = vars(prompts)[f"forced_{other}"]
        told = {OWN: own[i], OTHER: theirs, NONE: "", SHUFFLED: own[after[i]]}
        shown += [(key, judge, words, _names(words, prompts)) for judge, words in told.items()]
    heads = [
        template.prompt(tok, by_id[key]["messages"], by_id[key]["tools"])
        + template.judged("on", words).partition("<think_on>")[0]
        for key, _, words, _ in shown
    ]
    p_on = p_after(model, tok, heads)
    found = [(*row, p, "on" if p >= 0.5 else "off") for row, p in zip(shown, p_on, strict=True)]
    return pd.DataFrame(found, columns=COLUMNS)


def load(folder: Path) -> pd.DataFrame:
    """The rows of `probe` that stage 06 left in its folder."""
    return pd.DataFrame(read_jsonl(folder / "judges.jsonl"), columns=COLUMNS)


def _names(words: str, prompts) -> str | None:
    """The one mode that these words name; None where they name none or both."""
    named = set(re.findall(prompts.rationale_pattern, words))
    return named.pop() if len(named) == 1 else None


def marked(found: pd.DataFrame) -> pd.DataFrame:
    """`probe`'s rows with `follows` (the mode named; None where none is), `keeps` (the mode taken
    after its own judge) and `thinks`."""
    own = found[found["judge"] == OWN].set_index("id")["mode"]
    follows = found["mode"].eq(found["names"]).astype(object).where(found["names"].notna(), None)
    keeps = found["mode"].eq(found["id"].map(own))
    return found.assign(follows=follows, keeps=keeps, thinks=found["mode"].eq("on"))


def table(found: pd.DataFrame, arms: pd.DataFrame) -> pd.DataFrame:
    """What is decided after each judge, as text: judge x shares with intervals, accuracy, tokens.

    Accuracy and tokens are those of the final model's forced arm in the mode that was taken, so
    rows differ by the decision alone.
    """
    sides = {mode: per_prompt(pick(arms, AFTER, mode)) for mode in template.MODES}
    labels = arms.drop_duplicates("id").set_index("id")["cluster"]
    rows = {}
    for judge, part in marked(found).groupby("judge", sort=False):
        part = part.assign(cluster=part["id"].map(labels))
        taken = [
            sides[m].loc[key, MEASURES] for key, m in zip(part["id"], part["mode"], strict=True)
        ]
        came = pd.DataFrame(taken).mean()
        named = part["follows"].notna().any()
        rows[judge] = {
            "prompts": len(part),
            "think-on rate": f"{part['thinks'].mean():.0%}",
            "takes the mode named": percent(bootstrap(part, "follows"), ".0%") if named else "–",
            "decides as after its own": percent(bootstrap(part, "keeps"), ".0%"),
            "accuracy": "–" if pd.isna(came["correct"]) else f"{came['correct']:.1%}",
            "tokens": f"{came['tokens']:.1f}",
        }
    return pd.DataFrame(rows).T.rename_axis("judge")


def told(found: pd.DataFrame) -> str:
    """What exchanging the judge shows, in one sentence."""
    if found.empty:
        return "The final model decides nothing, so there is no judge to exchange."
    shares = marked(found).groupby("judge")[["follows", "keeps"]].agg(lambda x: x.dropna().mean())
    follows, keeps = shares["follows"].astype(float), shares["keeps"].astype(float)
    if follows[OTHER] >= NAMED:
        meaning = "the words make the decision"
    elif follows[OTHER] <= 1 - NAMED:
        meaning = "the words do not touch the decision"
    else:
        meaning = "the words sway the decision and do not make it"
    return (
        f"After the other mode's words the final model takes that mode in {follows[OTHER]:.0%} of "
        f"the queries; without a judge it decides as after its own in {keeps[NONE]:.0%}, after "
        f"another query's in {keeps[SHUFFLED]:.0%}: {meaning}."
    )
