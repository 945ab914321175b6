"""Stage 04: the model learns to choose a mode by itself (report section 4.1).

Votes say for every query whether thinking pays: the student's own (`cold_start.own_votes`), whose
right sample is then the response, or those of several models (`cold_start.teacher_votes`), where
the teacher of the mode writes it. The think-off teacher writes a rationale for the mode, 1 % of the
queries get a random mode, and TRL's SFTTrainer learns Table 2's layout.

Deviations: (1) a rationale that does not name its mode, or names the other one, is dropped and
counted; (2) a share of queries carries a directive of [prompts], whose mode is obeyed (section
6.4); (3) a share of the rows trained on replays Stage 1's behind a given decision, or a small model
forgets how to answer; (4) under LoRA the tags' embedding rows stay as stage 03
trained them: TRL's fused head takes no wrapped `lm_head`. How the votes differ stands in
those two modules.

    figures = stage.run(stage)
"""

import random

import pandas as pd
from datasets import Dataset
from transformers import set_seed
from trl import SFTConfig, SFTTrainer

from katlab import UserError, adapters, arms, batching, models, speed, teachers
from katlab.cold_start import own_votes, teacher_votes
from katlab.cold_start.corpus import direct, encode, mix, randomize, respond
from katlab.cold_start.rationale import rationalize
from katlab.cold_start.votes import BALLOT, counts, stratify
from katlab.lab import StageRun, read_jsonl, training, work, write_jsonl
from katlab.rewards import backends
from katlab.tasks import queries

SHOWN = {"loss": "loss", "mean_token_accuracy": "tokens right"}  # while it trains


@work
def run(stage: StageRun) -> dict[str, float]:
    """Vote, build the corpus, fine-tune the student on it, ask it held-out queries.

    Leaves votes.jsonl, corpus.jsonl, dropped.jsonl (rationales that contradict their mode),
    checkpoints/student and evaluation.jsonl (`arms.run_arm`'s rows). Returns shares in 0..1 and
    counts. Started again, it continues.
    """
    arguments(stage)  # its mistakes show before anybody votes
    asked = queries.number(stage.config, stage.settings.queries, "stage_2")
    voted = stage.kept("votes.jsonl", lambda: votes(stage))
    corpus = stage.kept("corpus.jsonl", lambda: build_corpus(stage, voted))
    dropped = read_jsonl(stage.dir / "dropped.jsonl")
    n_on = sum(row["mode"] == "on" for row in corpus)
    return {
        "rows": len(corpus),
        "unscorable_queries": asked - len(voted),
        "on_to_off": n_on / max(1, len(corpus) - n_on),
        "random_mode_share": sum("random_mode" in row for row in corpus) / len(corpus),
        "contradictions": len(dropped) / (len(corpus) + len(dropped)),
        **train(stage, corpus),
        **figures(pd.DataFrame(stage.kept("evaluation.jsonl", lambda: evaluate(stage)))),
    }


def votes(stage: StageRun) -> list[dict]:
    """Queries that stage 02 has not seen, each with the mode that it is voted to need."""
    s = stage.settings
    asked = queries.load(stage.config, s.queries, stage.seed, "stage_2")
    if s.votes == "own":
        student = stage.upstream("03_mtp_distillation") / "checkpoints" / "student"
        return own_votes.vote(stage, asked, *models.load_from(student, stage.config.model))
    return teacher_votes.vote(stage, asked)


def build_corpus(stage: StageRun, voted: list[dict]) -> list[dict]:
    """Stratify the voted queries, randomise and direct some, have them answered and explained.

    Where the votes leave too few queries the corpus is shorter (`votes.short_of` says so).
    """
    s, words = stage.settings, stage.config.prompts
    usable = voted
    if s.votes == "own":
        usable = own_votes.answerable(voted)
        stage.record(votes_unanswered=len(voted) - len(usable))
    rng = random.Random(stage.seed)
    chosen = []
    for level, n in counts(usable, stratify(usable, s.think_on_share), s.rows).items():
        chosen += rng.sample([row for row in usable if row["difficulty"] == level], n)
    rng.shuffle(chosen)
    think_on = sum(row["mode"] == "on" for row in chosen) / len(chosen)
    chosen = [{k: v for k, v in row.items() if k not in BALLOT} for row in chosen]
    chosen = randomize(chosen, s.random_share, stage.seed)
    chosen = direct(chosen, s.directive_share, s.think_on_share, words, stage.seed)
    off, on = teachers.pair(stage)
    own, rest = own_votes.respond(chosen)
    answered = own + respond(rest, off, on, words, stage.seed)
    stage.forget_after(-1, "responses")
    corpus, dropped = rationalize(answered, off, words)
    stage.log(
        phase="responses",
        voted=len(voted),
        usable=len(usable),
        chosen=len(chosen),
        think_on=think_on,
        answered=len(answered),
        explained=len(corpus),
    )
    if not corpus:
        raise UserError(
            f"Of {len(chosen)} queries {len(answered)} were answered and none explained; try both "
            "teachers on a few of them, and prompts.rationale."
        )
    write_jsonl(stage.dir / "dropped.jsonl", dropped)
    rng.shuffle(corpus)
    stage.record(**{f"{kind}_verifier": name for kind, name in backends().items()})
    return corpus


def arguments(stage: StageRun) -> SFTConfig:
    """The trainer's arguments: TRL's own from [cold_start.trainer]."""
    return training.arguments(
        stage,
        SFTConfig,
        batch_size=stage.settings.batch_size,
        output_dir=str(stage.checkpoints / "sft"),
        max_length=None,
        completion_only_loss=True,  # the default looks for a column "prompt" and finds none
        train_sampling_strategy="sequential",
    )


def train(stage: StageRun, corpus: list[dict]) -> dict[str, float]:
    """Fine-tune the distilled student on the corpus; saves checkpoints/student.

    A row longer than `max_length` tokens is left out and counted: cut, it would teach an answer
    without an end. Resumes from the last complete checkpoint of a run that was cut off.
    """
    s, config = stage.settings, stage.config
    source = stage.upstream("03_mtp_distillation") / "checkpoints" / "student"
    model, tokenizer = models.load_for_training(source, config.model, config.lora)
    stage_1 = read_jsonl(stage.upstream("02_dual_regime_data") / "corpus.jsonl")
    encoded, too_long = {}, 0
    replayed = [row for row in stage_1 if row["mode"] in s.replay_modes]
    for kind, rows in (("own", corpus), ("again", replayed)):
        whole = [encode(tokenizer, row, config.prompts) for row in rows]
        encoded[kind] = [row for row in whole if len(row["input_ids"]) <= s.max_length]
        too_long += len(whole) - len(encoded[kind])
    if s.replay_share and not encoded["again"]:
        raise UserError(
            f"Stage 1 has no rows of the modes {s.replay_modes}; change cold_start.replay_modes, "
            "or set cold_start.replay_share to 0."
        )
    if not encoded["own"]:
        raise UserError(f"Every row is longer than {s.max_length} tokens; raise max_length.")
    own, again = encoded["own"], encoded["again"]
    rows = mix(own, again, s.replay_share, s.steps * s.batch_size, stage.seed)
    rows = batching.by_length(rows, s.steps, s.batch_size, stage.seed)
    made = arguments(stage)
    set_seed(stage.seed)  # adapters are drawn, whether or not there was sampling before
    timed = speed.Timed(stage, "cold start", rows, s.batch_size)
    trainer = SFTTrainer(
        model=adapters.attach(model, config.lora),
        args=made,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[stage.callback("cold start", show=SHOWN), timed],
    )
    training.train(trainer)
    if stage.writes:
        models.save(trainer.model, tokenizer, stage.checkpoints / "student", config.model)
    losses = [logged["loss"] for logged in trainer.state.log_history if "loss" in logged]
    return {"rows_too_long": too_long, "train_loss": sum(losses) / len(losses)}


def evaluate(stage: StageRun) -> list[dict]:
    """What the student decides and answers on held-out queries, one row per query."""
    s = stage.settings
    model, tokenizer = models.load_from(stage.checkpoints / "student", stage.config.model)
    asked = queries.load(stage.config, s.eval_prompts, stage.seed, "eval")
    title, limit = "held-out queries", s.max_new_tokens
    frame = arms.run_arm(stage, model, tokenizer, asked, "auto", max_new_tokens=limit, title=title)
    return frame.to_dict("records")


def figures(evaluated: pd.DataFrame) -> dict[str, float]:
    """The figures of `evaluate`'s rows; what cannot be scored is counted, not averaged."""
    flags = arms.with_flags(evaluated)
    return {
        "think_on_rate": flags["thinks"].mean(),
        "well_formed": flags["well_formed"].mean(),
        "accuracy": flags["correct"].astype(float).mean(),
        "unscorable": int(flags["correct"].isna().sum()),
    }
