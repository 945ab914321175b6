"""What the distillation reads: the teachers' signal, and batches that carry it token by token.

Report section 3.1. Every row is rendered twice: for the student in the KAT layout with the trigger
token in the prompt, for its teacher (DeepSeek-R1's role for think-on rows, V3's for think-off) in
the teacher's own chat template. Thought and answer, which both say, are aligned by their bytes
(`uld`), each as a segment of its own.

Deviation: (1) tags and the end of turn, which no teacher says as the student does, get no signal.

    columns, tables, left_out = signals.examples(rows, tokenizer, signals, max_length=512)
"""

import random
import time
from collections import Counter
from itertools import repeat
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from katlab import UserError, lab, models, template
from katlab.lab.settings import count
from katlab.mtp_distillation import uld

OPEN_THOUGHT, CLOSE_THOUGHT, CLOSE_ANSWER = "<think>\n", "\n</think>\n\n", "\n</answer>"


class Tables(NamedTuple):
    """The teachers' signal for the rows of a dataset, which points into these tables."""

    top: Tensor  # (M, K) float16
    tail: Tensor  # (M,) float16
    chunk_logp: Tensor  # (G,) float32


def split(stage: lab.StageRun) -> tuple[list[dict], list[dict]]:
    """Rows to train on and `held_out` rows for the acceptance figure, drawn from 02's corpus."""
    path = stage.upstream("02_dual_regime_data") / "corpus.jsonl"
    corpus = lab.read_jsonl(path)
    random.Random(stage.seed).shuffle(corpus)
    held = count(stage.settings.held_out, len(corpus))
    rows = corpus[held : held + stage.settings.max_rows]
    if not rows:
        raise UserError(
            f"The corpus has {len(corpus)} rows and {held} are held out; make more in stage 02."
        )
    return rows, corpus[:held]


def prompt_of(row: dict, tokenizer: PreTrainedTokenizerBase) -> str:
    """The row's query in the teacher's own chat template, up to where its reply begins."""
    return tokenizer.apply_chat_template(
        row["messages"], tools=row["tools"], tokenize=False, add_generation_prompt=True
    )


def reply_of(row: dict, prompt: str) -> str:
    """What the row's teacher says: thought and answer in R1's layout, or the answer alone.

    Some templates (R1's distils) open the thought at the end of `prompt`; it is not opened twice.
    """
    if row["mode"] == "off":
        return row["answer"]
    opened = next(
        n for n in (len(OPEN_THOUGHT), len("<think>"), 0) if prompt.endswith(OPEN_THOUGHT[:n])
    )
    return f"{OPEN_THOUGHT[opened:]}{row['thought']}{CLOSE_THOUGHT}{row['answer']}"


def teacher_signals(stage: lab.StageRun, rows: list[dict]) -> list[uld.Signal | None]:
    """What teacher_on says of the think-on rows and teacher_off of the others; rank 0 asks, once.

    The file teacher_signal.safetensors keeps top-K probabilities of every reply token, 2K + 10
    bytes each; None for a row that the teacher's tokenizer changes.
    """
    path = stage.dir / "teacher_signal.safetensors"
    if stage.writes and not path.is_file():
        found = {mode: iter(_read(stage, rows, mode)) for mode in template.MODES}
        uld.save([next(found[row["mode"]]) for row in rows], path)
    while not path.is_file():  # other ranks wait here; a collective would time out
        time.sleep(0.2)
    return uld.load(path)


def _read(stage: lab.StageRun, rows: list[dict], mode: str) -> list[uld.Signal | None]:
    """The signals of one mode's rows; its teacher is in memory only here."""
    chosen = [row for row in rows if row["mode"] == mode]
    if not chosen:
        return []
    model, tokenizer = models.load_teacher(stage.config.model, mode)
    prompts = [prompt_of(row, tokenizer) for row in chosen]
    bar = stage.bar(len(chosen), f"reading with the think-{mode} teacher")
    signals = uld.capture(
        model,
        tokenizer,
        prompts,
        [reply_of(row, prompt) for row, prompt in zip(chosen, prompts, strict=True)],
        top_k=stage.settings.uld_top_k,
        temperature=stage.settings.temperature,
        batch_size=stage.settings.capture_batch_size,
        chunk=stage.settings.head_chunk,
        on_batch=bar.to,
    )
    bar.close()
    return signals


def examples(
    rows: list[dict],
    tokenizer: PreTrainedTokenizerBase,
    signals: list[uld.Signal | None] | None,
    max_length: int,
) -> tuple[list[dict], Tables, Counter]:
    """Tokens, labels and the teacher's word on each token, as columns and tables.

    Columns (T,): input_ids; labels, -100 on the prompt (the trigger is its end); signal, row of
    `Tables.top` about this token or -1; chunk, row of `Tables.chunk_logp` or -1. Without `signals`
    both are -1 throughout. The Counter says how many rows are left out: `rows_too_long` for
    `max_length` tokens, `rows_respelled` by the student's tokenizer or the teacher's. Raises
    UserError if no row is left.
    """
    columns, used, start = [], [], 0
    chunk_logp: list[float] = []
    left_out: Counter[str] = Counter()
    for row, teacher in zip(rows, signals or repeat(None, len(rows)), strict=True):
        prompt = template.prompt(tokenizer, row["messages"], row["tools"], mode=row["mode"])
        body = template.body(row["mode"], row["answer"], row["thought"])
        head = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        tail = tokenizer(body, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        ours = uld.byte_ends(tokenizer, body) if signals else None
        if len(head + tail) > max_length:
            left_out["rows_too_long"] += 1
            continue
        if signals and (teacher is None or ours is None):
            left_out["rows_respelled"] += 1
            continue
        signal, chunk = [-1] * len(head + tail), [-1] * len(head + tail)
        for group in paired(row, ours, teacher.ends.tolist()) if signals else []:
            first, last = (len(head) + at for at in group.student)
            if group.one_to_one:
                signal[first] = start + group.teacher[0]
            else:
                chunk[first:last] = [len(chunk_logp)] * (last - first)
                chunk_logp.append(float(teacher.logp[slice(*group.teacher)].sum()))
        if signals:
            used.append(teacher)
            start += len(teacher.ends)
        labels = [-100] * len(head) + tail
        columns.append(
            {"input_ids": head + tail, "labels": labels, "signal": signal, "chunk": chunk}
        )
    if not columns:
        raise UserError(
            f"No row is left: {left_out['rows_too_long']} are longer than {max_length} tokens and"
            f" {left_out['rows_respelled']} are changed by a tokenizer; raise max_length."
        )
    top = torch.cat([s.top for s in used]) if used else torch.empty(0, 1)
    tail = torch.cat([s.tail for s in used]) if used else torch.empty(0)
    return columns, Tables(top, tail, torch.tensor(chunk_logp)), left_out


def paired(row: dict, ours: list[int], theirs: list[int]) -> list[uld.Group]:
    """Groups of student and teacher tokens in the thought and in the answer, aligned apart.

    `ours` are byte ends of `template.body(...)`, `theirs` of `reply_of(row, prompt)`.
    """
    answer = len(row["answer"].encode())
    spans = [(ours[-1] - len(CLOSE_ANSWER) - answer, theirs[-1] - answer, answer)]
    if row["mode"] == "on":
        thought = len(row["thought"].encode())
        at = theirs[-1] - answer - len(CLOSE_THOUGHT) - thought
        spans.insert(0, (len(OPEN_THOUGHT), at, thought))
    return [group for span in spans for group in uld.align(ours, theirs, *span)]


class Collator:
    """Pad on the right and fetch the teachers' rows that the batch points to."""

    FILL = {"input_ids": 0, "labels": -100, "signal": -1, "chunk": -1}

    def __init__(self, tables: Tables):
        self.tables = tables

    def __call__(self, rows: list[dict]) -> dict[str, Tensor]:
        batch = {
            name: nn.utils.rnn.pad_sequence(
                [torch.tensor(row[name]) for row in rows], batch_first=True, padding_value=value
            )
            for name, value in self.FILL.items()
        }  # all (B, T)
        lengths = torch.tensor([len(row["input_ids"]) for row in rows])
        width = batch["input_ids"].shape[1]
        batch["attention_mask"] = (torch.arange(width) < lengths[:, None]).long()
        batch["signal"], used = _local(batch["signal"])
        batch["top"], batch["tail"] = self.tables.top[used], self.tables.tail[used]
        batch["chunk"], used = _local(batch["chunk"])
        batch["chunk_logp"] = self.tables.chunk_logp[used]
        return batch


def _local(index: Tensor) -> tuple[Tensor, Tensor]:
    """Renumber the entries >= 0 of an index from 0 on, and say which global rows they were."""
    used, local = index[index >= 0].unique(return_inverse=True)
    renumbered = torch.full_like(index, -1)
    renumbered[index >= 0] = local
    return renumbered, used
