"""Stage 08 as the launcher starts it."""

import json

import pandas as pd
from conftest import CHECKOUT

from katlab.lab import launch
from katlab.lab.runs import StageRun
from katlab.scaling_plan import figures, planner


def test_the_launcher_counts_the_40b(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("KATLAB_ROOT", str(CHECKOUT))
    stage = StageRun.create(tmp_path, "r", "08_scaling_plan", profile="tiny")
    assert launch.main(["08_scaling_plan", "--dir", str(stage.dir)]) == 0
    assert json.loads(capsys.readouterr().out.splitlines()[-1]) == {
        "parameters": 40_565_560_320,
        "layers": 80,
        "query_heads": 40,
        "key_value_heads": 8,
        "untied": 1,
    }
    shown = json.loads((stage.dir / "progress.json").read_text())
    assert shown["step"] == shown["total"] == 9  # one per depth, as every stage shows its progress
    rows = pd.read_csv(stage.dir / "scaling.csv", index_col="model")
    assert tuple(rows.index) == planner.PROFILES
    depths = pd.read_csv(stage.dir / "depths.csv")
    assert depths["layers"].tolist() == list(range(64, 97, 4))
    assert len(figures.by_depth(depths).axes) == 4
