"""Stage 04 by either votes at tiny size: real teachers and training, a student that is told."""

import pandas as pd
import pytest
from trainers import finished

from katlab import UserError, template
from katlab.cold_start import stage as cold_start
from katlab.cold_start import verdict
from katlab.generation import local
from katlab.lab import StageRun, read_jsonl, records, write_jsonl
from katlab.tasks import queries

pytestmark = pytest.mark.slow
SMALL = {"cold_start.queries": 60, "cold_start.rows": 40, "cold_start.eval_prompts": 4}
SMALL |= {"cold_start.vote_samples": 2}
THREE = (("student", "off"), ("teacher", "off"), ("teacher", "on"))
KILLS = [("own", 60 * 2 * 2, 5), ("teachers", 60 * 3 * 2, 2), ("teachers", 60 * 3 * 2, 6)]


def prepared(root, votes="own", **overrides) -> StageRun:
    finished(root, "03_mtp_distillation")
    stage_1 = [{"mode": "off", "thought": None, "answer": "7", "tools": None}]
    asked = [{"role": "user", "content": "3+4?"}]
    write_jsonl(
        finished(root, "02_dual_regime_data").dir / "corpus.jsonl",
        [row | {"messages": asked} for row in stage_1],
    )
    overrides = SMALL | {"cold_start.votes": votes} | overrides
    return StageRun.create(root, "r", "04_cold_start", profile="tiny", overrides=overrides)


def voting(monkeypatch, stage: StageRun, easy: int) -> None:
    """Let the student be right with a thought up to difficulty 4, and directly up to `easy`."""
    student = str(stage.upstream("03_mtp_distillation") / "checkpoints" / "student")
    rows = queries.load(stage.config, stage.settings.queries, stage.seed, "stage_2")
    generate = local.generate

    def known(model, tok, encoded, settings, **more):
        if str(model.name_or_path) != student:
            return generate(model, tok, encoded, settings, **more)
        said = {}
        for row in rows:
            for mode in template.MODES:
                prompt = template.prompt(tok, row["messages"], row["tools"], mode=mode)
                right = row["difficulty"] <= {"on": 4, "off": easy}[mode]
                thought = row["thought"] if mode == "on" else None
                text = template.body(mode, row["direct"] if right else "no idea", thought)
                ids = [*tok(text, add_special_tokens=False)["input_ids"], tok.eos_token_id]
                said[tuple(tok(prompt, add_special_tokens=False)["input_ids"])] = ids
        return [said[tuple(ids)] for ids in encoded]

    monkeypatch.setattr(local, "generate", known)


def follows(stage: StageRun, result: dict) -> None:
    """The verdict and the metrics of a stage tell what its folder holds."""
    evaluated = pd.DataFrame(read_jsonl(stage.dir / "evaluation.jsonl"))
    pattern = stage.config.prompts.rationale_pattern
    told = {row.claim: row for row in verdict.rows(result, 6, evaluated, pattern)}
    corpus = read_jsonl(stage.dir / "corpus.jsonl")
    on = sum(row["mode"] == "on" for row in corpus)
    mix = told["Votes reach think-on : think-off"]
    assert mix.measured == f"{on / (len(corpus) - on):.2f} : 1"
    assert mix.held == (1.8 <= on / (len(corpus) - on) <= 2.2)
    untrained = told["The cold start's judge names the mode it takes"]
    assert untrained.held is None, "nothing is said of a student that gives no answer"
    left = [row for row in stage.metrics() if row.get("phase") == "responses"]
    assert [row["explained"] for row in left] == [len(corpus)]
    steps = [left[0][key] for key in ("voted", "usable", "chosen", "answered", "explained")]
    assert steps == sorted(steps, reverse=True) and steps[0] == 60


def test_the_students_own_votes_make_the_corpus(tmp_path, monkeypatch):
    stage = prepared(tmp_path)
    voting(monkeypatch, stage, easy=2)
    result = cold_start.run(stage)
    voted = {row["id"]: row for row in read_jsonl(stage.dir / "votes.jsonl")}
    assert len(voted) == 60 and result["unscorable_queries"] == 0
    assert all((row["mode"] == "on") == (row["difficulty"] in (3, 4)) for row in voted.values())
    hopeless = {name for name, row in voted.items() if row["difficulty"] == 5}
    assert hopeless and records.read(stage.dir)["headline"]["votes_unanswered"] == len(hopeless)
    corpus = read_jsonl(stage.dir / "corpus.jsonl")
    assert result["rows"] == len(corpus) > 20 and not hopeless & {row["id"] for row in corpus}
    own = [row for row in corpus if row["teacher"] == "student"]
    assert {row["mode"] for row in own} == {"on", "off"}
    for row in own:
        assert row["answer"] == row["direct"]
        thought = voted[row["id"]]["thought"]  # of the query, which the student wrote word by word
        assert row["thought"] == (thought if row["mode"] == "on" else None)
    others = [row for row in corpus if row["teacher"] != "student"]
    assert all(row["mode"] == "off" and row["difficulty"] > 2 for row in others)
    assert not {"shortest", "passed", "forced", "replies", "verdicts"} & set(corpus[0])
    follows(stage, result)
    assert (stage.checkpoints / "student" / "model.safetensors").is_file()


def test_the_majority_of_three_models_makes_the_corpus(tmp_path, monkeypatch):
    stage = prepared(tmp_path, "teachers")
    voting(monkeypatch, stage, easy=2)
    result = cold_start.run(stage)
    voted = {row["id"]: row for row in read_jsonl(stage.dir / "votes.jsonl")}
    assert len(voted) == 60 and result["unscorable_queries"] == 0
    voters = [f"{who}, think-{mode}" for who, mode in THREE for _ in range(2)]
    for row in voted.values():
        assert row["voter"] == voters and row["votes"] == 6
        assert row["passed"]["student, think-off"] == float(row["difficulty"] <= 2)
        right = sum(row["verdicts"][:4]) + row["verdicts"][4:].count(False)
        assert row["votes_off"] == right and row["mode"] == ("off" if right > 3 else "on")
    corpus = read_jsonl(stage.dir / "corpus.jsonl")
    names = {mode: vars(stage.config.model)[f"teacher_{mode}"] for mode in template.MODES}
    assert result["rows"] == len(corpus) > 20
    assert {row["mode"] for row in corpus} == {"on", "off"}
    assert all(names[row["mode"]].endswith(row["teacher"]) for row in corpus)
    free = [row for row in corpus if "plain" not in row and "random_mode" not in row]
    assert free and all(row["mode"] == voted[row["id"]]["mode"] for row in free)
    assert not {"passed", "forced", "replies", "verdicts", "voter", "votes"} & set(corpus[0])
    assert records.read(stage.dir)["headline"].get("votes_unanswered") is None
    follows(stage, result)


def counted(monkeypatch, until: int | None = None) -> list[int]:
    """Sizes of all batches that any model is asked; after `until` of them it is interrupted."""
    asked, generate = [], local.generate

    def counting(model, tok, encoded, settings, **more):
        if len(asked) == until:
            raise KeyboardInterrupt
        asked.append(len(encoded))
        return generate(model, tok, encoded, settings, **more)

    monkeypatch.setattr(local, "generate", counting)
    return asked


@pytest.mark.parametrize(("votes", "replies", "until"), KILLS)
def test_a_kill_while_voting_loses_one_batch(tmp_path, monkeypatch, votes, replies, until):
    """Killed in the student's outputs, or in a teacher's; nothing is voted twice."""
    stage = prepared(tmp_path, votes)
    first = counted(monkeypatch, until)
    with pytest.raises(KeyboardInterrupt):
        cold_start.votes(stage)
    monkeypatch.undo()
    second = counted(monkeypatch)
    voted = cold_start.votes(StageRun.open(stage.dir))
    assert len(first) == until and second and sum(first) + sum(second) == replies
    monkeypatch.undo()
    assert cold_start.votes(prepared(tmp_path / "whole", votes)) == voted
    again = counted(monkeypatch)
    assert cold_start.votes(StageRun.open(stage.dir)) == voted and not again


def test_a_student_that_is_never_right_votes_for_no_corpus(tmp_path):
    """The untrained student closes no answer: both rates are 0, and no sample is there to keep."""
    stage = prepared(tmp_path, **{"cold_start.queries": 8})
    voted = cold_start.votes(stage)
    assert [row["mode"] for row in voted] == ["off"] * 8
    with pytest.raises(UserError, match="none of 8 queries rightly in the mode that won"):
        cold_start.build_corpus(stage, voted)
