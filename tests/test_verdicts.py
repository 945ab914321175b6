"""Every claim of stages 01 to 04, 07 and 08 fails on work that went wrong; 05 and 06 have theirs.

A case is what is wrong, and the claims (by words that name one) that must not hold then: False for
not held, None for not applicable. Together the cases of a stage fail each of its claims.
"""

from types import SimpleNamespace

import pandas as pd
import pytest

from katlab.case_studies import verdict as case_studies
from katlab.cold_start import verdict as cold_start
from katlab.compare_runs import verdict as compare_runs
from katlab.dual_regime_data import verdict as dual_regime_data
from katlab.layer_saturation import verdict as layer_saturation
from katlab.layer_saturation.study import VARIANTS
from katlab.mtp_distillation import verdict as mtp_distillation
from katlab.scaling_plan import verdict as scaling_plan


def depth(cosines=(0.9, 0.96, 0.92, 0.8), skips=(2, 1, 3, 4), copied=0.01) -> SimpleNamespace:
    layers = pd.DataFrame({"similarity": cosines, "skip": skips})
    layers["influence"] = 1 - layers["similarity"]
    starts = pd.DataFrame({"variant": [VARIANTS[0][0]], "loss_change": [copied]})
    return SimpleNamespace(name="real", layers=layers, starts=starts)


def stage_01(own=None, real=None, added=(2,), change=0.0):
    real = real or depth(skips=(3, 1, 2, 4))
    own = own or SimpleNamespace(**vars(depth()) | {"name": "own"})
    plan = SimpleNamespace(
        duplicated=list(added), parent_layers=4, child_layers=4 + len(added), start="half-step"
    )
    return layer_saturation.rows(own, real, plan, change)


def stage_02(passed=3):
    record = {"think_on_share": 0.348, "kept_off": 0.9, "kept_on": 0.8, "tag_agreement": 1.0}
    return dual_regime_data.rows(record | {"rows": 3}, [True] * passed + [False] * (3 - passed))


def stage_03(gain=0.06, acceptance=0.9, on=(0.9, 0.9), off=(0.9, 0.4)):
    levels = pd.DataFrame({"on": on, "off": off}, index=[1, 5])
    return mtp_distillation.rows((gain, gain - 0.01, gain + 0.01), acceptance, levels)


def stage_04(mode="on", says="on", formed=1.0, accuracy=0.9, rate=0.8, ratio=2.0):
    said = pd.DataFrame({"id": range(20), "mode": mode, "completion": f"think {says}.</judge>"})
    record = {"think_on_rate": rate, "well_formed": formed, "accuracy": accuracy}
    record |= {"on_to_off": ratio, "random_mode_share": 0.01, "contradictions": 0.0}
    return cold_start.rows(record, 6, said, "think (on|off)")


def stage_07(
    plain="gate",
    told_on="on",
    told_off="off",
    formed=True,
    right=True,
    steps="switch",
    unseen=None,
    named=True,
):
    def thinks(mode: str, level: int) -> bool:
        return level == 5 if mode == "gate" else mode == "on"

    cases = {"plain": plain, "told on": told_on, "told off": told_off}
    cases |= {"forced on": "on", "forced off": "off", "teacher": "on"}
    rows = [
        {"id": f"{level}-{i}", "difficulty": level, "case": case, "thinks": thinks(mode, level),
         "mode": "on" if thinks(mode, level) else "off", "correct": right, "well_formed": formed,
         "tokens": 90 if thinks(mode, level) else 30, "wording": wording,
         "completion": f"think {'on' if thinks(mode, level) == named else 'off'}.</judge>"}
        for case, known in cases.items()
        for wording, mode in (("seen", known), ("unseen", unseen or known))
        if wording == "seen" or case.startswith("told")
        for level in (1, 5)
        for i in range(20)
    ]  # fmt: skip
    walked = [
        {"id": agent, "step": step, "asks": f"{step} changes", "reached": steps != "lost",
         "thinks": steps != "stuck" and step == 2}
        for agent in range(10)
        for step in (1, 2)
    ]  # fmt: skip
    return case_studies.rows(pd.DataFrame(rows), pd.DataFrame(walked), "think (on|off)")


def stage_08(**counted):
    right = {"layers": 80, "parameters": 40.57e9, "query_heads": 40, "key_value_heads": 8}
    return scaling_plan.rows(right | {"untied": 1} | counted)


FLAT = depth(cosines=(0.99, 0.98, 0.97, 0.96), skips=(1, 2, 3, 4))
CASES = [
    (stage_01, {"real": FLAT}, {"near identity": False}),
    (stage_01, {"real": depth(skips=(4, 3, 2, 1))}, {"ranks the damage": False}),
    (stage_01, {"real": depth(skips=(3, 1, 2, 4), copied=0.6)}, {"(real, 0.05 nats)": False}),
    (stage_01, {"own": SimpleNamespace(**vars(depth(copied=0.6)) | {"name": "own"})},
     {"(student, 0.05 nats)": False}),
    (stage_01, {"change": 0.6}, {"start keeps": False}),
    (stage_01, {"added": (2, 2)}, {"once each": False}),
    (stage_02, {"passed": 2}, {"graded again": False}),
    (stage_03, {"gain": 0.01}, {"MTP+KD": False}),
    (stage_03, {"acceptance": 0.5}, {"acceptance": False}),
    (stage_03, {"on": (0.9, 0.5)}, {"forced on, all": False, "over forced off": False}),
    (stage_03, {"off": (0.5, 0.4)}, {"forced off, easiest": False}),
    (stage_03, {"off": (0.9, 0.9)}, {"over forced off": False}),  # thinking buys nothing
    (stage_03, {"gain": 0, "on": (0, 0), "off": (0, 0)},  # a student that knows nothing
     {"MTP+KD": False, "acceptance": None, "forced on, all": False, "forced off, easiest": False,
      "over forced off": False}),
    (stage_04, {"says": "off"}, {"judge names": False}),  # swapped
    (stage_04, {"rate": 1.0}, {"Think-on rate": False}),  # always on
    (stage_04, {"rate": 0.0, "mode": "off", "says": "off"}, {"Think-on rate": False}),
    (stage_04, {"ratio": 1.0}, {"Votes reach": False}),
    (stage_04, {"formed": 0.5},
     {"judge names": None, "Think-on rate": None, "Well-formed": False}),
    (stage_04, {"mode": None, "formed": 0.0, "accuracy": 0.0},
     {"judge names": None, "Think-on rate": None, "Well-formed": False}),
    (stage_04, {"accuracy": 0.0}, {"judge names": None, "Think-on rate": None}),
    (stage_07, {"plain": "on"}, {"simple query": False, "fewer tokens": False}),
    (stage_07, {"plain": "off"}, {"hard query": False}),
    (stage_07, {"told_off": "gate"}, {"no thought": False, "wish not to think": False}),
    (stage_07, {"told_on": "gate"}, {"deeper thought": False, "wish to think": False}),
    (stage_07, {"unseen": "gate"},  # the wishes were learned by heart
     {"no thought": False, "deeper thought": False, "wish not to think": False,
      "wish to think": False}),
    (stage_07, {"steps": "stuck"}, {"switches modes": False}),
    (stage_07, {"steps": "lost"}, {"tool calls": False}),
    (stage_07, {"named": False}, {"names the mode": False}),
    (stage_07, {"formed": False}, {"forced by program": False}),
    (stage_07, {"right": False}, {}),
    (stage_08, {"layers": 64}, {"Layers": False}),
    (stage_08, {"parameters": 32e9}, {"Parameters": False}),
    (stage_08, {"key_value_heads": 40}, {"heads": False}),
    (stage_08, {"untied": 0}, {"Embeddings": False}),
]  # fmt: skip
STAGES = (stage_01, stage_02, stage_03, stage_04, stage_07, stage_08)
SILENT = ({"formed": False}, {"right": False})  # of stage 07: all else is not applicable


def outcomes(rows) -> dict[str, bool | None]:
    return {row.claim: row.held for row in rows if row.kind != "fact"}


@pytest.mark.parametrize("stage", STAGES)
def test_good_work_holds_every_claim_that_can_be_tested(stage):
    assert False not in outcomes(stage()).values()
    untested = [claim for claim, ok in outcomes(stage()).items() if ok is None]
    assert untested == (["40B balances scale and compute (peak MFU)"] if stage is stage_08 else [])


@pytest.mark.parametrize(("stage", "wrong", "expected"), CASES)
def test_work_that_went_wrong_fails_just_there(stage, wrong, expected):
    good, found = outcomes(stage()), outcomes(stage(**wrong))
    for words in expected:
        assert sum(words in claim for claim in found) == 1, words
    for claim, ok in found.items():
        named = [value for words, value in expected.items() if words in claim]
        silent = stage is stage_07 and wrong in SILENT and "forced by program" not in claim
        assert ok == (named[0] if named else None if silent else good[claim]), claim


@pytest.mark.parametrize("stage", STAGES)
def test_every_claim_fails_in_some_case(stage):
    wrong = [expected for made, _, expected in CASES if made is stage]
    failing = {words for case in wrong for words, ok in case.items() if ok is False}
    tested = [claim for claim, ok in outcomes(stage()).items() if ok is not None]
    assert all(any(words in claim for words in failing) for claim in tested)


def test_what_stage_09_counts_are_facts():
    rows = compare_runs.rows({"held_everywhere": 3, "claims": 4, "seeds": 1})
    assert [row.kind for row in rows] == ["fact"] * 2
