"""Stage 04: the model learns to choose a mode by itself (report section 4.1).

Votes (`katlab.votes`) say for every query whether thinking pays. The teacher of that mode writes
the response, the think-off teacher writes a rationale for the mode, 1 % of the queries get a random
mode, and TRL's SFTTrainer learns Table 2's layout.

Deviations: (1) a rationale that does not name its mode, or names the other one, is dropped and
counted; (2) a share of queries carries a directive in words ("Do not think."), whose mode is obeyed
(section 6.4); (3) a share of the rows trained on replays Stage 1's direct answers behind a given
decision, or a small model forgets how to answer directly; (4) under LoRA the tags' embedding rows
stay as stage 03 trained them: TRL's fused head takes no wrapped `lm_head`. How the votes differ
stands in `katlab.votes`.

    metrics = cold_start.build_corpus(stage); metrics |= cold_start.train(stage)
"""

import random
import re
from itertools import islice
from pathlib import Path

import pandas as pd
from datasets import Dataset
from transformers import PreTrainedTokenizerBase, PrinterCallback
from trl import SFTConfig, SFTTrainer

from katlab import UserError, batching, evaluation, models, template
from katlab.lab import latest_checkpoint
from katlab.lab.runs import StageRun
from katlab.nano import world
from katlab.responders import LocalResponder, ask
from katlab.rewards import backends
from katlab.synthesis import load_queries, read_jsonl, think_off, think_on, write_jsonl
from katlab.votes import choose_voter, stratify, vote

NAMES_MODE = re.compile(r"think (on|off)")


def randomize(rows: list[dict], share: float, seed: int) -> list[dict]:
    """Give a share of the queries a random mode, whatever the vote (section 4.1.1: 1 %)."""
    rng = random.Random(seed)
    chosen = set(rng.sample(range(len(rows)), round(share * len(rows))))
    return [
        row | ({"mode": rng.choice(template.MODES), "random_mode": True} if i in chosen else {})
        for i, row in enumerate(rows)
    ]


def direct(rows: list[dict], share: float, share_on: float, seed: int) -> list[dict]:
    """Put a directive in words into a share of the queries and obey it, `share_on` of them on."""
    rng = random.Random(seed)
    chosen = set(rng.sample(range(len(rows)), round(share * len(rows))))
    marked = []
    for i, row in enumerate(rows):
        if i in chosen:
            mode = "on" if rng.random() < share_on else "off"
            row = world.with_directive(row, mode) | {"plain": row["messages"], "mode": mode}
        marked.append(row)
    return marked


def rationalize(rows: list[dict], writer: LocalResponder) -> tuple[list[dict], int]:
    """Ask why each row has its mode; return (rows with `judge`, how many contradicted).

    Where the user said which mode, that is the reason, in the words that force a mode in 06.
    """
    told = [row | {"judge": evaluation.FORCED[row["mode"]]} for row in rows if "plain" in row]
    asked = [row for row in rows if "plain" not in row]
    replies = writer.respond([ask(row, f"Why think {row['mode']}?") for row in asked])
    kept = [
        row | {"judge": text}
        for row, (text,) in zip(asked, replies, strict=True)
        if set(NAMES_MODE.findall(text)) == {row["mode"]}
    ]
    return told + kept, len(asked) - len(kept)


def respond(rows: list[dict], off: LocalResponder, on: LocalResponder, seed: int) -> list[dict]:
    """The chosen mode's teacher answers; only verified responses are kept."""
    plain = [row | {"messages": row.get("plain", row["messages"]), "row": row} for row in rows]
    answered = think_off([r for r in plain if r["mode"] == "off"], off, samples=2, seed=seed)
    answered += think_on([r for r in plain if r["mode"] == "on"], off, on, rounds=2, seed=seed)
    keep = ("mode", "thought", "answer", "teacher")
    return [r["row"] | {key: r[key] for key in keep} for r in answered]


def build_corpus(stage: StageRun) -> pd.DataFrame:
    """Vote, stratify, randomise, answer and explain; writes votes.jsonl and corpus.jsonl."""
    s, config = stage.settings, stage.config
    queries = load_queries(config, s.queries, stage.seed + 1, "train")  # unseen in Stage 1
    voter = choose_voter(stage, queries[: s.voter_probe])
    model, tokenizer = models.load_from(voter, config.model)
    voted = vote(stage, queries, model, tokenizer)
    write_jsonl(stage.dir / "votes.jsonl", voted)
    stage.log(phase="votes", queries=len(voted))
    weights = stratify(voted, s.think_on_share)
    rng = random.Random(stage.seed)
    n = min(s.rows, *(_available(voted, d, w) for d, w in weights.items() if w > 0.01))
    chosen = []
    for difficulty, weight in weights.items():
        pool = [row for row in voted if row["difficulty"] == difficulty]
        chosen += rng.sample(pool, min(len(pool), round(n * weight)))
    rng.shuffle(chosen)
    chosen = randomize(chosen, s.random_share, stage.seed)
    chosen = direct(chosen, s.directive_share, s.think_on_share, stage.seed)
    off = LocalResponder(Path(config.model.teacher_off), s.max_new_tokens, stage)
    on = LocalResponder(Path(config.model.teacher_on), s.max_new_tokens, stage)
    answered = respond(chosen, off, on, stage.seed)
    stage.log(phase="responses", asked=len(chosen), kept=len(answered))
    corpus, contradictions = rationalize(answered, off)
    rng.shuffle(corpus)
    write_jsonl(stage.dir / "corpus.jsonl", corpus)
    n_on = sum(row["mode"] == "on" for row in corpus)
    stage.record(
        **{f"{kind}_verifier": name for kind, name in backends().items()},
        rows=len(corpus),
        on_to_off=n_on / max(1, len(corpus) - n_on),
        random_mode_share=sum("random_mode" in row for row in corpus) / len(corpus),
        contradictions=contradictions / len(answered),
    )
    return pd.DataFrame(corpus)


def _available(rows: list[dict], difficulty: int, weight: float) -> int:
    return int(sum(row["difficulty"] == difficulty for row in rows) / weight)


def encode(tokenizer: PreTrainedTokenizerBase, row: dict) -> dict:
    """A row as `input_ids` and `completion_mask`; its prompt, with the judge's tag, has no loss.

    Of a Stage-2 row analysis, decision, thought and answer are learned. A Stage-1 row has no
    analysis: a judge's part that forces its mode is given, as a forced arm is prefilled, so that
    its skill moves into the new layout and no decision is learned from it.
    """
    head = template.prompt(tokenizer, row["messages"], row["tools"])
    tail = template.body(row["mode"], row["answer"], row["thought"])
    if "judge" in row:
        tail = template.judged(row["mode"], row["judge"]) + tail
    else:
        head += template.judged(row["mode"], evaluation.FORCED[row["mode"]])
    head, tail = (tokenizer(text, add_special_tokens=False)["input_ids"] for text in (head, tail))
    tail.append(tokenizer.eos_token_id)
    return {"input_ids": head + tail, "completion_mask": [0] * len(head) + [1] * len(tail)}


def mix(
    corpus: list[dict], replayed: list[dict], replay_share: float, total: int, seed: int
) -> list[dict]:
    """`total` rows, a share of them replayed; no row comes again before all its own have."""
    rng = random.Random(seed)
    again = round(replay_share * total)
    rows = list(islice(batching.passes(corpus, rng), total - again))
    return rows + list(islice(batching.passes(replayed, rng), again))


def train(stage: StageRun) -> dict[str, float]:
    """Fine-tune the distilled student on corpus.jsonl; saves checkpoints/student.

    Resumes from the last complete checkpoint of a run that was cut off.
    """
    s, config = stage.settings, stage.config
    source = stage.upstream("03_mtp_distillation") / "checkpoints" / "student"
    model, tokenizer = models.load_from(source, config.model)
    corpus = read_jsonl(stage.dir / "corpus.jsonl")
    stage_1 = read_jsonl(stage.upstream("02_dual_regime_data") / "corpus.jsonl")
    direct_answers = [row for row in stage_1 if row["mode"] == "off"]
    if s.replay_share and not direct_answers:
        raise UserError("Stage 1 has no direct answers; set cold_start.replay_share to 0.")
    per_step = s.batch_size * s.gradient_accumulation
    mixed = mix(corpus, direct_answers, s.replay_share, s.steps * per_step, stage.seed)
    rows = [encode(tokenizer, row) for row in mixed]
    rows = batching.by_length(rows, s.steps, per_step, stage.seed)
    arguments = SFTConfig(
        output_dir=str(stage.checkpoints / "sft"),
        max_steps=s.steps,
        per_device_train_batch_size=s.batch_size,
        gradient_accumulation_steps=s.gradient_accumulation,
        learning_rate=s.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=s.warmup,
        adam_beta2=s.adam_beta2,
        max_length=s.max_length,
        completion_only_loss=True,  # the default looks for a column "prompt" and finds none
        train_sampling_strategy="sequential",
        gradient_checkpointing=config.model.gradient_checkpointing,
        bf16=config.model.bf16,
        logging_steps=s.logging_steps,
        save_steps=s.save_steps,
        save_total_limit=1,
        report_to=stage.report_to,
        seed=stage.seed,
        disable_tqdm=True,
    )
    trainer = SFTTrainer(
        model=models.attach_lora(model, config.lora),
        args=arguments,
        train_dataset=Dataset.from_list(rows),
        processing_class=tokenizer,
        callbacks=[stage.callback("cold start", show=("loss", "mean_token_accuracy"))],
    )
    trainer.remove_callback(PrinterCallback)  # the stage's own callback shows the progress
    result = trainer.train(resume_from_checkpoint=latest_checkpoint(stage.checkpoints / "sft"))
    if trainer.is_world_process_zero():
        models.save(trainer.model, tokenizer, stage.checkpoints / "student")
    return {"train_loss": result.training_loss, "steps": result.global_step}
