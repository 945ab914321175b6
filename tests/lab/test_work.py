"""A stage's work: done once under one fingerprint, never under settings changed by hand."""

import json
import os
import subprocess
import sys
import time

import numpy as np
import pytest

from katlab import UserError, lab
from katlab.lab import records
from katlab.lab.runs import StageRun

NAME = "05_step_srpo"


def begin(tmp_path, fingerprint="x", **how) -> StageRun:
    return StageRun.create(tmp_path, "r", NAME, fingerprint=fingerprint, **how)


def counted():
    """A stage's work and how often it was done."""
    done = []

    @lab.work
    def run(stage: StageRun) -> dict[str, float]:
        """Work."""
        done.append(stage.seed)
        return {"reward": np.float64(0.5), "steps": np.int64(len(done))}

    return run, done


def test_work_is_done_once_and_its_figures_are_the_headline(tmp_path):
    run, done = counted()
    stage = begin(tmp_path)
    assert run(stage) == {"reward": 0.5, "steps": 1}
    assert records.read(stage.dir)["headline"] == {"reward": 0.5, "steps": 1}
    assert run(stage) == run(StageRun.open(stage.dir)) == {"reward": 0.5, "steps": 1}
    assert len(done) == 1
    assert run.__name__ == "run" and run.__doc__ == "Work."


def test_work_that_failed_is_done_again(tmp_path):
    stage = begin(tmp_path)

    @lab.work
    def broken(stage):
        raise ValueError("no")

    with pytest.raises(ValueError):
        broken(stage)
    assert stage.result() is None
    run, done = counted()
    run(stage)
    assert len(done) == 1


def test_a_result_under_another_fingerprint_does_not_count(tmp_path):
    run, done = counted()
    run(begin(tmp_path, "x"))
    run(begin(tmp_path, "y"))  # what `prepare` would have set aside
    assert len(done) == 2


def test_settings_changed_by_hand_are_refused_with_the_command_for_a_variant(tmp_path):
    """Before, the finished checkpoint was resumed and old figures stood under a new omega."""
    run, done = counted()
    stage = begin(tmp_path)
    run(stage)
    stage.settings.omega = 0.9
    with pytest.raises(UserError) as mistake:
        run(stage)
    assert str(mistake.value) == (
        "Settings changed in this notebook (omega 0.1 -> 0.9), and run 'r' keeps its own; "
        'train anew in a variant with: stage = stage.variant("r-omega-0.9", omega=0.9)'
    )
    stage.settings.omega = 0.1
    stage.config.model.bf16 = True
    stage.config.prompts.tag = "Tag it, please."
    with pytest.raises(UserError, match="model.bf16 False -> True") as mistake:
        run(stage)
    assert 'stage.variant("r-bf16-True-tag-Tag-it-please")' in str(mistake.value)
    assert len(done) == 1


def test_finished_work_keeps_its_record_when_its_stage_is_begun_again(tmp_path):
    run, _ = counted()
    stage = begin(tmp_path, started="2020-01-01T00:00:00.000+00:00")
    run(stage)
    stage.finish()
    before = records.read(stage.dir)
    again = begin(tmp_path)
    record = records.read(again.dir)
    assert record["state"] == "running" and record["reused"]
    assert records.alive(record)
    again.record(more=1)
    again.finish()
    after = records.read(again.dir)
    same = ("started", "ended", "seconds", "peak_memory_mib", "git", "versions", "settings")
    assert {key: after[key] for key in same} == {key: before[key] for key in same}
    assert after["headline"] == before["headline"] | {"more": 1}
    assert after["state"] == "done"


def test_an_unfinished_attempt_keeps_the_figures_found_so_far(tmp_path):
    begin(tmp_path).record(rows=7)
    assert records.read(begin(tmp_path).dir)["headline"] == {"rows": 7}
    assert records.read(begin(tmp_path, "y").dir)["headline"] == {}


def test_upstream_work_serves_while_its_page_is_drawn_or_broken(tmp_path):
    run, _ = counted()
    first = begin(tmp_path)
    second = StageRun.create(tmp_path, "r", "06_evaluation")
    with pytest.raises(UserError, match="which is running"):
        second.upstream(NAME)
    run(first)
    assert second.upstream(NAME) == first.dir
    first.close("failed", "a typing mistake in a figure")
    assert second.upstream(NAME) == first.dir


def test_rows_are_made_once(tmp_path):
    stage = begin(tmp_path)
    assert stage.kept("queries.jsonl", lambda: [{"id": 1}]) == [{"id": 1}]
    assert stage.kept("queries.jsonl", lambda: 1 / 0) == [{"id": 1}]


def test_rows_whose_making_failed_leave_no_file(tmp_path):
    stage = begin(tmp_path)

    def half():
        yield {"id": 1}
        raise ValueError("no")

    with pytest.raises(ValueError):
        stage.kept("queries.jsonl", half)
    assert not (stage.dir / "queries.jsonl").exists()


def test_other_ranks_wait_for_rank_zeros_rows(tmp_path):
    stage = begin(tmp_path)
    code = (
        "import sys, json\nfrom katlab.lab import StageRun\n"
        "print('up', flush=True)\n"
        "print(json.dumps(StageRun.open(sys.argv[1]).kept('q.jsonl', lambda: 1 / 0)))"
    )
    other = subprocess.Popen(
        [sys.executable, "-c", code, str(stage.dir)],
        env=os.environ | {"RANK": "1", "WORLD_SIZE": "2"},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert other.stdout.readline() == "up\n"
    time.sleep(0.5)
    assert other.poll() is None  # it waits
    stage.kept("q.jsonl", lambda: [{"id": 1}])
    shown, _ = other.communicate(timeout=60)
    assert other.returncode == 0 and json.loads(shown) == [{"id": 1}]


def test_a_journal_lies_in_the_stages_folder(tmp_path, monkeypatch):
    stage = begin(tmp_path)
    stage.journal("replies.jsonl").put("q", "a")
    assert stage.journal("replies.jsonl").get("q") == "a"
    assert (stage.dir / "replies.jsonl").is_file()
    monkeypatch.setenv("RANK", "1")
    other = StageRun.open(stage.dir)
    other.journal("replies.jsonl").put("p", "b")
    assert "p" not in stage.journal("replies.jsonl")
