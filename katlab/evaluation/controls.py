"""Other ways to choose a mode, on the same prompts and weights: what a gate has to beat.

A ranking of the prompts (a model's own P(on), the length of the query ...) becomes a router by
thinking on the first of them until the tokens of the gate are spent; so every control costs what
the gate costs. Rules of one feature are fitted on the queries that stage 05 tried, never on those
evaluated. All of it is ours.

    frame = controls.at_equal_tokens(on, off, score, tokens)
"""

import re
from collections.abc import Iterable

import numpy as np
import pandas as pd

OPERATORS = re.compile(r"[-+*/×÷−](?=\s*\d)")
FEATURES = ("length", "operators", "category x length")
MEASURES = ["correct", "tokens"]
BINS = 3  # lengths within a category, by thirds


def features(rows: Iterable[dict]) -> pd.DataFrame:
    """What can be seen of a query without a model: id, category, length, operators.

    Both of the last turn, in characters and in signs before a number.
    """
    table = []
    for row in rows:
        last = row["messages"][-1]["content"] or ""
        table.append(
            {
                "id": row["id"],
                "category": row["category"],
                "length": len(last),
                "operators": len(OPERATORS.findall(last)),
            }
        )
    return pd.DataFrame(table).set_index("id")


def fit(seen: pd.DataFrame, missed: pd.Series) -> dict[str, pd.DataFrame]:
    """The share missed without a thought by value of each feature, from queries not evaluated.

    `seen` is `features` of them; `missed` is True, False or None (no verifier could say), by id.
    Returns a table value -> share for each of `FEATURES`; "category x length" has the values
    (category, third of its lengths).
    """
    known = seen.assign(missed=missed).dropna(subset="missed").astype({"missed": float})
    edges = known.groupby("category")["length"].quantile([k / BINS for k in range(1, BINS)])
    edges = edges.unstack()
    known = known.assign(third=_thirds(known, edges))
    fitted = {name: known.groupby(name)["missed"].agg(["mean", "size"]) for name in FEATURES[:2]}
    fitted[FEATURES[2]] = known.groupby(["category", "third"])["missed"].agg(["mean", "size"])
    return fitted | {"edges": edges}


def _thirds(table: pd.DataFrame, edges: pd.DataFrame) -> list[int]:
    """Which third of its category's lengths each row falls in; 0 for a category never seen."""
    return [
        int(np.searchsorted(edges.loc[category], length)) if category in edges.index else 0
        for category, length in zip(table["category"], table["length"], strict=True)
    ]


def score(asked: pd.DataFrame, fitted: dict[str, pd.DataFrame]) -> pd.DataFrame:
    """How much each feature speaks for a thought: one column per feature, by id.

    A value that was not seen takes the share of the nearest one, a cell that was not seen the mean.
    """
    found = {}
    for name in FEATURES[:2]:
        shares = fitted[name]["mean"]
        nearest = [int(np.abs(shares.index - value).argmin()) for value in asked[name]]
        found[name] = shares.to_numpy()[nearest]
    shares = fitted[FEATURES[2]]["mean"]
    cells = zip(asked["category"], _thirds(asked, fitted["edges"]), strict=True)
    found[FEATURES[2]] = [shares.get(cell, shares.mean()) for cell in cells]
    return pd.DataFrame(found, index=asked.index)


def best(seen: pd.DataFrame, missed: pd.Series, fitted: dict[str, pd.DataFrame]) -> str:
    """The feature whose shares explain most of what is missed, on the queries it was fitted on.

    By the Brier score: the mean squared distance of share and outcome.
    """
    table = score(seen, fitted)
    outcome = missed.reindex(table.index)
    known = outcome.notna()
    errors = (table[known].sub(outcome[known].astype(float), axis=0) ** 2).mean()
    return str(errors.idxmin())


def at_equal_tokens(
    on: pd.DataFrame, off: pd.DataFrame, score: pd.Series, tokens: float
) -> pd.DataFrame:
    """Thinking on the prompts of highest `score`, as many as cost `tokens` on average.

    `on`, `off` are forced arms, `score` is by id (a prompt without one comes last). Prompts of one
    score think with one probability, so the boundary is shared, not drawn: one expected row per
    prompt, with `thinks` as that probability.
    """
    sides = per_prompt(on), per_prompt(off)
    ids = sides[0].index.intersection(sides[1].index)
    think, direct = (side.loc[ids] for side in sides)
    dearer = (think["tokens"] - direct["tokens"]).to_numpy()
    left = tokens * len(ids) - direct["tokens"].sum()
    ranks = score.reindex(ids).astype(float).fillna(-np.inf).to_numpy()
    share = np.zeros(len(ids))
    for value in sorted(set(ranks), reverse=True):
        if left <= 0:
            break
        group = ranks == value
        cost = dearer[group].sum()
        share[group] = 1.0 if cost <= left else left / cost
        left -= min(cost, left)
    chosen = think[MEASURES].mul(share, axis=0) + direct[MEASURES].mul(1 - share, axis=0)
    return think.drop(columns=MEASURES).join(chosen).assign(thinks=share).reset_index()


def per_prompt(frame: pd.DataFrame) -> pd.DataFrame:
    """Means of `MEASURES` by prompt, in floats; category, difficulty and cluster are kept."""
    values = frame.astype({name: float for name in MEASURES})
    labels = [name for name in ("category", "difficulty", "cluster") if name in frame]
    how = dict.fromkeys(labels, "first") | dict.fromkeys(MEASURES, "mean")
    return values.groupby("id").agg(how)
