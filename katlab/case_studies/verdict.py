"""The claims of stage 07: what the report's section 6 shows once, measured over many queries.

stage.verdict(verdict.rows(cases, steps, stage.config.prompts.rationale_pattern))
"""

import pandas as pd

from katlab.intervals import bootstrap, paired_difference, percent, wilson
from katlab.lab import Claim
from katlab.samples import judge_agrees

FORMED, ACCURACY = 0.9, 0.2  # below either, nothing is said about behaviour


def rows(cases: pd.DataFrame, steps: pd.DataFrame, names_mode: str) -> list[Claim]:
    """The rows of stage 07's verdict; what the report shows once is measured over n queries.

    With fewer than `FORMED` of the plain replies well formed, or fewer than `ACCURACY` right, every
    claim but the one about the format is not applicable; so are the claims about agents where none
    was run (`steps` has no row). What an average hides stands among the facts. `names_mode` is as
    in `samples.judge_agrees`.
    """
    case = dict(list(cases.groupby("case")))
    plain, forced = case["plain"], pd.concat([case["forced on"], case["forced off"]])
    simple = plain[plain["difficulty"] == plain["difficulty"].min()]
    hard = plain[plain["difficulty"] == plain["difficulty"].max()]
    calm = _share(~simple["thinks"], simple["id"])
    deep = bootstrap(hard, "thinks")
    told = {
        m: _share(case[f"told {m}"]["mode"].eq(m), case[f"told {m}"]["id"]) for m in ("off", "on")
    }
    formed = bootstrap(forced, "well_formed")
    less = paired_difference(simple, case["teacher"], "tokens", relative=True)
    agrees = plain.assign(agrees=judge_agrees(plain, names_mode))
    decided = agrees["agrees"].notna().any()
    named = bootstrap(agrees, "agrees") if decided else (0.0, 0.0, 0.0)
    once, n = "one example", f"n = {plain['id'].nunique()}"
    behaviour = [
        Claim(
            "A simple query is answered without thinking (Figure 10)",
            f"{once}; ≥ 80 % (ours)",
            f"{percent(calm)}, n = {len(simple)}",
            calm[0] >= 0.80,
            "report",
        ),
        Claim(
            "It costs fewer tokens than a reasoning model (Figure 10)",
            "379 thought tokens saved",
            f"{percent(less, '+.0%')}, n = {len(simple)}",
            less[2] < 0,
            "report",
        ),
        Claim(
            "A hard query is thought through (Figure 11)",
            f"{once}; ≥ 90 % (ours)",
            f"{percent(deep)}, n = {len(hard)}",
            deep[0] >= 0.90,
            "report",
        ),
        *_agents(steps),
        *(
            Claim(
                f"The query's wish for {wish} is obeyed (Figure 13)",
                f"{once}; ≥ 90 % (ours)",
                f"{percent(told[mode])}, {n}, in all words",
                told[mode][0] >= 0.90,
                "report",
            )
            for mode, wish in (("off", "no thought"), ("on", "a deeper thought"))
        ),
        *(_unseen(case[f"told {mode}"], mode) for mode in ("off", "on")),
        Claim(
            "The judge of a plain reply names the mode it takes",
            "≥ 95 % (ours)",
            f"{percent(named)}, {n}",
            named[0] >= 0.95,
            "target",
        ),
    ]
    right = plain["correct"].astype(float).mean()
    if not (plain["well_formed"].mean() >= FORMED and right >= ACCURACY):
        behaviour = [claim.withheld() for claim in behaviour]
    claim = "A mode forced by program gives well-formed replies"
    measured = f"{percent(formed)}, n = {len(forced)}"
    found = Claim(claim, "≥ 98 % (ours)", measured, formed[0] >= 0.98, "target")
    return [*behaviour, found, *_facts(case, steps)]


def _facts(case: dict[str, pd.DataFrame], steps: pd.DataFrame) -> list[Claim]:
    told = {
        f"Told {mode}: well formed, right": (
            f"{percent(bootstrap(case[f'told {mode}'], 'well_formed'))}, "
            f"{percent(bootstrap(case[f'told {mode}'], 'correct'))}"
        )
        for mode in ("off", "on")
        if case[f"told {mode}"]["correct"].notna().any()
    }
    if len(steps):
        told["Agents by step: does what was asked, thinks"] = "; ".join(
            f"{step} ({part['asks'].iloc[0]}) {part['reached'].mean():.0%}, "
            f"{part['thinks'].mean():.0%}"
            for step, part in steps.groupby("step")
        )
    return [Claim(name, "–", value, None, "fact") for name, value in told.items()]


def _unseen(told: pd.DataFrame, mode: str) -> Claim:
    """Wishes in held-out words; not applicable where all words were trained on."""
    wish = {"on": "to think", "off": "not to think"}[mode]
    claim = f"A wish {wish} in words never trained on is obeyed"
    obeyed = told.loc[told["wording"] == "unseen", "mode"].eq(mode)
    if obeyed.empty:
        return Claim(claim, "≥ 90 % (ours)", "all words were trained on", None, "target")
    share = (obeyed.mean(), *wilson(obeyed.sum(), len(obeyed)))
    measured = f"{percent(share)}, n = {len(obeyed)}"
    return Claim(claim, "≥ 90 % (ours)", measured, bool(share[0] >= 0.90), "target")


def _agents(steps: pd.DataFrame) -> list[Claim]:
    switching = "An agent switches modes along its steps (Figure 12)"
    calling = "An agent's tool calls do what was asked (Figure 12)"
    one, none = "one trajectory", "no agent was run"
    if steps.empty:
        return [Claim(claim, one, none, None, "report") for claim in (switching, calling)]
    both = steps.groupby("id")["thinks"].agg(lambda t: t.any() and not t.all()).astype(bool)
    switches, reached = _share(both, both.index), bootstrap(steps, "reached")
    switched = f"{percent(switches)}, {steps['id'].nunique()} agents"
    turned = f"{percent(reached)}, {len(steps)} steps"
    return [
        Claim(switching, f"{one}; ≥ 90 % (ours)", switched, switches[0] >= 0.90, "report"),
        Claim(calling, f"{one}; ≥ 80 % (ours)", turned, reached[0] >= 0.80, "report"),
    ]


def _share(flags: pd.Series, ids: pd.Series) -> tuple[float, float, float]:
    """How often a flag is true, with its interval over the prompts or agents `ids`."""
    return bootstrap(pd.DataFrame({"id": list(ids), "flag": list(flags)}), "flag")
