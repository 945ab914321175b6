"""Every system and control on the same prompts: what it answers, what that costs.

Systems were sampled; controls choose between the samples of the final model's two forced arms.

    systems.table(systems.ways(arms, "operators"), t_max=128)
"""

import pandas as pd

from katlab.arms import ARMS
from katlab.evaluation import scores
from katlab.evaluation.controls import at_equal_tokens
from katlab.evaluation.routing import better_mode, oracle_router, pick, random_router
from katlab.intervals import bootstrap, percent

BEFORE, AFTER = "cold start", "final"
ENDS = ("", " low", " high")
SCORES = {"auc_oaa": "AUC_OAA", "f1_otb": "F1", "ock_score": "OckScore"}
COIN, RULE, ORACLE = "coin at the final rate", "rule of one feature", "oracle"
ALWAYS_ON, ALWAYS_OFF = "final, always on", "final, always off"
OWN_P, START_P = "threshold on the final's P(on)", "threshold on the cold start's P(on)"
SAMPLED = {  # of `ways`: name: (system, arm)
    "base, before any stage": ("base", "free"),
    "distilled, on command": ("distilled", "on"),
    "distilled, off command": ("distilled", "off"),
    "cold start, it decides": (BEFORE, "auto"),
    "final, it decides": (AFTER, "auto"),
    ALWAYS_ON: (AFTER, "on"),
    ALWAYS_OFF: (AFTER, "off"),
    "teacher that thinks": ("teacher on", "on"),
    "teacher that does not": ("teacher off", "off"),
}


def ways(arms: pd.DataFrame, rule: str, delta: float = 0.0) -> dict[str, pd.DataFrame]:
    """Every system and control on the same prompts, by name; what was not sampled is left out.

    A prompt that could not be scored in both forced arms of the final model is in none. `rule` is
    the feature of the one-feature rule, as `controls.best` named it. Rule and thresholds cost what
    the final gate costs (`controls.at_equal_tokens`).
    """
    scored = better_mode(pick(arms, AFTER, "on"), pick(arms, AFTER, "off")).index
    arms = arms[arms["id"].isin(scored)]
    sampled = set(zip(arms["system"], arms["arm"], strict=True))
    found = {name: pick(arms, *key) for name, key in SAMPLED.items() if key in sampled}
    auto, on, off = (pick(arms, AFTER, arm) for arm in ARMS)
    spent = auto["tokens"].mean()
    found[COIN] = random_router(on, off, auto["thinks"].mean())
    for name, system in ((START_P, BEFORE), (OWN_P, AFTER)):
        decided = pick(arms, system, "auto")
        surest = decided["p_on"].astype(float).groupby(decided["id"]).mean()
        think, direct = pick(arms, system, "on"), pick(arms, system, "off")
        found[name] = at_equal_tokens(think, direct, surest, spent)
    seems = auto.drop_duplicates("id").set_index("id")[f"by {rule}"]
    found[RULE] = at_equal_tokens(on, off, seems, spent)
    oracle = oracle_router(on, off, delta)
    found[ORACLE] = oracle.assign(thinks=oracle["mode"].eq("on"))
    return found


def table(ways: dict[str, pd.DataFrame], t_max: float) -> pd.DataFrame:
    """`ways` with n: accuracy and mean tokens with intervals, think-on rates, the papers' scores.

    A way without a scorable sample has no row; a control that is an expectation over two arms has
    no thought tokens and so no AUC_OAA and no F1.
    """
    rows = {}
    for name, frame in ways.items():
        if frame["correct"].isna().all():
            continue
        rows[name] = {"prompts": frame["id"].nunique()}
        for key, column in (("accuracy", "correct"), ("tokens", "tokens")):
            ends = bootstrap(frame, column)
            names = (key, f"{key} low", f"{key} high")
            rows[name] |= dict(zip(names, ends, strict=True))
        thinks = frame["thinks"].astype(float).groupby(frame["difficulty"]).mean()
        rows[name] |= {"think-on rate": frame["thinks"].astype(float).mean()}
        rows[name] |= {"easiest": thinks.iloc[0], "hardest": thinks.iloc[-1]}
        sampled = "thought_tokens" in frame
        found = scores.of(frame, t_max) if sampled else {"ock_score": scores.ock_score(frame)}
        rows[name] |= {title: found.get(key) for key, title in SCORES.items()}
    return pd.DataFrame(rows).T.astype(float).astype({"prompts": int})


def listed(table: pd.DataFrame) -> pd.DataFrame:
    """`table` in words: means with their intervals, shares in per cent, a dash for no score."""

    def score(value: float, form: str) -> str:
        return "–" if pd.isna(value) else format(value, form)

    rows = {
        name: {
            "accuracy": percent([row[f"accuracy{end}"] for end in ENDS]),
            "tokens": "{:.1f} [{:.1f}, {:.1f}]".format(*(row[f"tokens{end}"] for end in ENDS)),
            **{key: f"{row[key]:.0%}" for key in ("think-on rate", "easiest", "hardest")},
            "AUC_OAA": score(row["AUC_OAA"], ".3f"),
            "F1": score(row["F1"], ".3f"),
            "OckScore": score(row["OckScore"], ".2f"),
        }
        for name, row in table.iterrows()
    }
    return pd.DataFrame(rows).T.rename_axis("system")
