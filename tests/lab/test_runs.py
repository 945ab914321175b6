"""Stages on disk: files, states, atomic writes, ranks, checkpoints worth resuming from."""

import json
import os
import re
import subprocess
import sys
from types import SimpleNamespace

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import save_file

from katlab import UserError
from katlab.lab import Claim, runs
from katlab.lab.progress import curve, line, number, seconds, telling
from katlab.lab.runs import StageRun
from katlab.lab.training import latest_checkpoint


def test_a_stage_writes_what_the_contract_promises(tmp_path):
    stage = StageRun.create(tmp_path, "r", "05_step_srpo", seed=3, overrides={"step_srpo.steps": 7})
    assert stage.dir == tmp_path / "r" / "05_step_srpo"
    assert stage.settings.steps == 7 == stage.config.step_srpo.steps
    assert stage.checkpoints.is_dir()
    stage.log(step=10, reward=np.float32(0.5), length=torch.tensor(3))
    stage.log(reward=1.0)
    stage.record(reward=np.mean([1.0, 0.0]), steps=np.int64(7))
    record = runs.read(stage.dir)
    assert record["state"] == "running"
    assert record["headline"] == {"reward": 0.5, "steps": 7}
    assert record["seed"] == 3
    assert {"python", "torch", "trl"} <= set(record["versions"])
    assert stage.metrics() == [
        {"step": 10, "reward": 0.5, "length": 3},
        {"step": 11, "reward": 1.0},
    ]
    stage.finish()
    assert runs.read(stage.dir)["state"] == "done"


def test_open_sees_the_same_stage(tmp_path):
    made = StageRun.create(
        tmp_path, "r", "04_cold_start", seed=1, overrides={"cold_start.steps": 2}
    )
    again = StageRun.open(made.dir)
    assert vars(again.settings) == vars(made.settings)
    assert (again.name, again.run, again.seed, again.dir) == ("04_cold_start", "r", 1, made.dir)


def test_open_without_a_stage_says_what_to_do(tmp_path):
    with pytest.raises(UserError, match="no run.json"):
        StageRun.open(tmp_path)


def test_upstream_is_a_finished_folder_or_a_sentence(tmp_path):
    first = StageRun.create(tmp_path, "r", "04_cold_start")
    second = StageRun.create(tmp_path, "r", "05_step_srpo")
    with pytest.raises(UserError, match="which is running .* katlab run --to 04 --run r"):
        second.upstream("04_cold_start")
    first.finish()
    assert second.upstream("04_cold_start") == first.dir
    with pytest.raises(UserError, match="which is not run"):
        second.upstream("03_mtp_distillation")


def test_a_write_cut_off_leaves_the_old_file(tmp_path, monkeypatch):
    stage = StageRun.create(tmp_path, "r", "04_cold_start")
    before = (stage.dir / "run.json").read_text()

    def cut(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", cut)
    with pytest.raises(KeyboardInterrupt):
        stage.record(reward=1.0)
    assert (stage.dir / "run.json").read_text() == before


def test_metrics_survive_a_line_cut_by_a_kill(tmp_path):
    stage = StageRun.create(tmp_path, "r", "04_cold_start")
    stage.log(loss=1.0)
    with (stage.dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2, "lo')
    assert [row["step"] for row in stage.metrics()] == [1]


def test_a_resumed_phase_forgets_only_its_own_later_rows(tmp_path):
    stage = StageRun.create(tmp_path, "r", "03_mtp_distillation")
    for phase in ("kd", "mtp"):
        for step in (5, 10):
            stage.log(step=step, phase=phase)
    stage.forget_after(5, "kd")
    assert [(r["phase"], r["step"]) for r in stage.metrics()] == [
        ("kd", 5),
        ("mtp", 5),
        ("mtp", 10),
    ]


def test_only_rank_zero_writes(tmp_path, monkeypatch):
    stage = StageRun.create(tmp_path, "r", "04_cold_start")
    before = {p: p.read_bytes() for p in stage.dir.rglob("*") if p.is_file()}
    monkeypatch.setenv("RANK", "1")
    other = StageRun.open(stage.dir)
    other.log(loss=1.0)
    other.record(loss=1.0)
    figure, axes = plt.subplots()
    axes.set_title("Loss")
    other.figure(figure, "loss", "It falls.")
    other.verdict([Claim("It falls.", 1, 0, True, "report")])
    list(other.progress(2, "work"))
    other.finish()
    assert {p: p.read_bytes() for p in stage.dir.rglob("*") if p.is_file()} == before


def test_a_running_stage_whose_process_is_gone_has_died(tmp_path):
    code = (
        f"from katlab.lab import StageRun; StageRun.create({str(tmp_path)!r}, 'r', '04_cold_start')"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
    record = runs.read(tmp_path / "r" / "04_cold_start")
    assert (record["state"], runs.state(record)) == ("running", "died")
    alive = StageRun.create(tmp_path, "r", "05_step_srpo")
    assert runs.state(runs.read(alive.dir)) == "running"


def test_a_figure_is_saved_with_title_and_takeaway(tmp_path):
    stage = StageRun.create(tmp_path, "r", "04_cold_start")
    figure, axes = plt.subplots()
    with pytest.raises(UserError, match="no title"):
        stage.figure(figure, "x", "It falls.")
    axes.set_title("Loss")
    with pytest.raises(UserError, match="one sentence"):
        stage.figure(figure, "x", "loss")
    stage.figure(figure, "x", "It falls.")
    assert (stage.figures / "x.png").read_bytes().startswith(b"\x89PNG")
    index = json.loads((stage.figures / "index.json").read_text())
    alt = "Loss. A drawing."
    assert index == {"x": {"title": "Loss", "takeaway": "It falls.", "alt": alt, "hero": False}}
    assert (stage.figures / "x.svg").read_text().startswith("<?xml")
    assert (stage.figures / "x.csv").is_file()
    assert not plt.fignum_exists(figure.number)


def test_a_figure_says_what_the_profile_remarks_on_the_weights(tmp_path):
    given = {"model.weights": "dequantised q4_k_m"}
    stage = StageRun.create(tmp_path, "r", "04_cold_start", overrides=given)
    figure, axes = plt.subplots()
    axes.set_title("Loss")
    stage.figure(figure, "x", "It falls.")
    index = json.loads((stage.figures / "index.json").read_text())
    assert index["x"]["takeaway"] == "It falls. Weights: dequantised q4_k_m."


def test_a_verdict_keeps_every_outcome(tmp_path):
    stage = StageRun.create(tmp_path, "r", "04_cold_start")
    rows = [
        Claim("d", "", 4, None, "fact"),
        Claim("a", 0.348, np.float64(0.3412), np.bool_(True), "report"),
        Claim("b", 1, 2, False, "report"),
        Claim("c", "", 3, None, "check"),
    ]
    stage.verdict(rows)
    saved = json.loads((stage.dir / "verdict.json").read_text())
    assert [row["held"] for row in saved] == [True, False, None, None]
    assert [row["kind"] for row in saved] == ["report", "report", "check", "fact"]  # facts last
    assert (saved[0]["reported"], saved[0]["measured"]) == ("0.348", "0.341")


def test_a_fact_has_no_verdict_and_a_kind_is_one_of_four():
    with pytest.raises(UserError, match="is a fact"):
        Claim("Rows", "-", 3, True, "fact")
    with pytest.raises(UserError, match="report, target, check, fact"):
        Claim("Rows", "-", 3, True, "figure")
    assert Claim("Tokens fall", "-19 %", 0, True, "report").withheld().held is None


def test_progress_is_written_and_read_as_one_line(tmp_path):
    stage = StageRun.create(tmp_path, "r", "04_cold_start")
    bar = stage.bar(10, "training", show={"think_on_rate": "think-on rate"})
    bar.started -= 20.0  # twenty seconds ago
    stage.log(loss=0.0, think_on_rate=0.75)
    bar.written = 0.0
    bar.to(4)
    record = json.loads((stage.dir / "progress.json").read_text())
    assert line(record) == "training · step 4/10 · 30 s left · think-on rate 0.75"
    stage.finish()
    assert not (stage.dir / "progress.json").exists()


def test_a_notebook_shows_a_curve_of_each_labelled_figure(tmp_path, monkeypatch):
    stage = StageRun.create(tmp_path, "r", "04_cold_start")
    bar = stage.bar(10, "training", show={"reward": "the reward", "loss": "loss"})
    shown = []
    monkeypatch.setattr(bar, "handle", SimpleNamespace(update=lambda page: shown.append(page.data)))
    stage.shows = True
    for step, reward in ((0, 0.25), (5, 0.75), (10, 0.5)):
        stage.log(step=step, reward=reward, entropy=1.0, loss=float("nan"))
    bar.close()
    [page] = shown
    assert page.count("<polyline") == 1, "entropy is not asked for, a loss of nan has no place"
    assert 'points="0.0,100.0 50.0,0.0 100.0,50.0"' in page  # from the left, 0 at the top
    assert "the reward" in page and "<b>0.5</b>" in page and "step 0 to 10" in page


def test_a_long_curve_keeps_its_last_point_and_stays_small():
    drawn = curve([(step, float(step)) for step in range(30_000)], 29_999)["points"].split()
    assert drawn[0] == "0.3,100.0" and drawn[-1] == "100.0,0.0" and len(drawn) <= 201
    assert curve([(3, 1.0)], 6)["points"] == "50.0,100.0"


def test_telling_metrics_come_before_the_loss():
    logs = {"loss": 0.0, "grad_norm": 1.0, "reward": 0.8, "think_on_rate": 0.4, "reward_note": "x"}
    assert list(telling(logs, most=3)) == ["think_on_rate", "reward", "loss"]
    assert telling(logs, show={"grad_norm": "gradient"}) == {"gradient": 1.0}


@pytest.mark.parametrize(
    ("value", "text"),
    [(42.4, "42 s"), (185, "3 min 05 s"), (7800, "2 h 10 min"), (59.6, "1 min 00 s")],
)
def test_seconds_read_as_people_say_them(value, text):
    assert seconds(value) == text


def test_numbers_read_as_people_write_them():
    values = (1234, 0.87345, 8037.25, True, "yes")
    assert [number(v) for v in values] == ["1,234", "0.873", "8,037.2", "True", "yes"]


def checkpoint(folder, step: int):
    path = folder / f"checkpoint-{step}"
    path.mkdir()
    (path / "trainer_state.json").write_text(json.dumps({"global_step": step}))
    for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
        torch.save({"step": step}, path / name)
    save_file({"w": torch.zeros(4)}, path / "model.safetensors")
    return path


DAMAGE = {
    "optimizer missing": lambda p: (p / "optimizer.pt").unlink(),
    "scheduler missing": lambda p: (p / "scheduler.pt").unlink(),
    "random state missing": lambda p: (p / "rng_state.pth").unlink(),
    "state missing": lambda p: (p / "trainer_state.json").unlink(),
    "state cut": lambda p: (p / "trainer_state.json").write_text('{"global'),
    "state of another step": lambda p: (p / "trainer_state.json").write_text('{"global_step": 1}'),
    "weights missing": lambda p: (p / "model.safetensors").unlink(),
    "weights cut": lambda p: os.truncate(p / "model.safetensors", 70),
    "weights empty": lambda p: os.truncate(p / "model.safetensors", 0),
    "optimizer cut": lambda p: os.truncate(p / "optimizer.pt", 300),
    "scheduler empty": lambda p: os.truncate(p / "scheduler.pt", 0),
}


@pytest.mark.parametrize("damage", DAMAGE.values(), ids=DAMAGE.keys())
def test_a_damaged_checkpoint_is_passed_over(tmp_path, damage):
    good, bad = checkpoint(tmp_path, 9), checkpoint(tmp_path, 10)
    assert latest_checkpoint(tmp_path) == str(bad)
    damage(bad)
    assert latest_checkpoint(tmp_path) == str(good)


def test_no_checkpoint_is_none(tmp_path):
    (tmp_path / "checkpoint-best").mkdir()
    assert latest_checkpoint(tmp_path) is None
    assert latest_checkpoint(tmp_path / "nowhere") is None


@given(st.integers(0, 10**6), st.integers(1, 10**6))
def test_number_and_seconds_never_fail(a, b):
    assert seconds(a / b) and number(a / b)


def test_names_of_data_are_words_on_an_axis(tmp_path):
    import seaborn as sns

    stage = StageRun.create(tmp_path, "r", "04_cold_start")
    figure, axes = plt.subplots()
    sns.heatmap(pd.DataFrame([[0.5], [1.0]], ["multi_turn", "math"], ["low"]), ax=axes)
    axes.set_title("Votes")
    stage.figure(figure, "votes", "They vote.")
    told = (stage.figures / "votes.csv").read_text()
    assert "multi turn" in told and "multi_turn" not in told


def shown(tmp_path, monkeypatch, content, **formats):
    stage, pages = StageRun.create(tmp_path, "r", "05_step_srpo"), []
    stage.shows = True
    monkeypatch.setattr("katlab.lab.display.show", pages.append)
    stage.table(content, "Caption <1>", **formats)
    return pages[0]


def test_a_table_has_a_caption_scopes_and_rounded_numbers(tmp_path, monkeypatch):
    frame = pd.DataFrame({"share": [0.51234, None], "multi_turn": [5.0, 804544.0]})
    page = shown(tmp_path, monkeypatch, frame.rename_axis("step"), share=".1%")
    assert "Caption &lt;1&gt;</caption>" in page
    assert page.count('scope="col"') == 3 and page.count('scope="row"') == 2
    cells = re.findall(r"<td[^>]*>(.*?)</td>", page)
    assert cells == ["51.2%", "5", "–", "804,544"]
    assert ">multi turn<" in page and 'data-label="share:"' in page


def test_a_table_of_figures_has_their_labels_and_units(tmp_path, monkeypatch):
    page = shown(tmp_path, monkeypatch, {"steps": 30, "tokens_saved": 0.25})
    names = re.findall(r"<th scope=\"row\"[^>]*>(.*?)</th>", page)
    assert names == ["tokens saved", "training steps"] and ">25.0 %<" in page
