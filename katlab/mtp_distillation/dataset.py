"""Rows as the trainer reads them: tokens, labels, and what the teachers say of each token.

Report section 3.1. Every row is rendered twice: for the student in the KAT layout with the trigger
token in the prompt, for its teacher in the teacher's own chat template (`signals`). Thought and
answer, which both say, are aligned by their bytes (`alignment`), each as a segment of its own.

Deviation: (1) tags and the end of turn, which no teacher says as the student does, get no signal.

    columns, tables, left_out = dataset.build(rows, tokenizer, signals, max_length=512)
"""

from collections import Counter
from collections.abc import Mapping
from itertools import repeat
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from katlab import UserError, template
from katlab.mtp_distillation import mtp, uld
from katlab.mtp_distillation.alignment import Group, align, byte_ends
from katlab.mtp_distillation.signals import (
    CLOSE_ANSWER,
    CLOSE_THOUGHT,
    OPEN_THOUGHT,
    Reader,
    prompt_of,
    reply_of,
)


class Tables(NamedTuple):
    """The teachers' signal for the rows of a dataset, which points into these tables."""

    top: Tensor  # (M, K) float16
    tail: Tensor  # (M,) float16
    chunk_logp: Tensor  # (G,) float32


def build(
    rows: list[dict],
    tokenizer: PreTrainedTokenizerBase,
    signals: list[uld.Signal | None] | None,
    max_length: int,
    along: Mapping[str, Reader] | None = None,
) -> tuple[list[dict], Tables, Counter]:
    """Tokens, labels and the teacher's word on each token, as columns and tables.

    Columns (T,): input_ids; labels, -100 on the prompt (the trigger is its end); signal, row of
    `Tables.top` about this token or -1; chunk, row of `Tables.chunk_logp` or -1. Without `signals`
    both are -1 throughout. With readers `along`, by mode, also teacher_ids, what the row's reader
    reads; teacher_at (T,), where this token stands in it or -1; reader, its place or -1. The
    Counter says how many rows are left out: `rows_too_long` for
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
        reader = (along or {}).get(row["mode"])
        ours = byte_ends(tokenizer, body) if signals or reader else None
        if len(head + tail) > max_length:
            left_out["rows_too_long"] += 1
            continue
        if (reader or signals) and (ours is None or not (reader or teacher)):
            left_out["rows_respelled"] += 1
            continue
        signal, chunk = [-1] * len(head + tail), [-1] * len(head + tail)
        for group in paired(row, ours, teacher.ends.tolist()) if teacher else []:
            first, last = (len(head) + at for at in group.student)
            if group.one_to_one:
                signal[first] = start + group.teacher[0]
            else:
                chunk[first:last] = [len(chunk_logp)] * (last - first)
                chunk_logp.append(float(teacher.logp[slice(*group.teacher)].sum()))
        if teacher:
            used.append(teacher)
            start += len(teacher.ends)
        labels = [-100] * len(head) + tail
        columns.append(
            {"input_ids": head + tail, "labels": labels, "signal": signal, "chunk": chunk}
        )
        if along:
            columns[-1] |= _read_along(row, reader, head, tail, ours)
    if not columns:
        raise UserError(
            f"No row is left: {left_out['rows_too_long']} are longer than {max_length} tokens and"
            f" {left_out['rows_respelled']} are changed by a tokenizer; raise max_length."
        )
    top = torch.cat([s.top for s in used]) if used else torch.empty(0, 1)
    tail = torch.cat([s.tail for s in used]) if used else torch.empty(0)
    return columns, Tables(top, tail, torch.tensor(chunk_logp)), left_out


def _read_along(
    row: dict, reader: Reader | None, head: list[int], tail: list[int], ours: list[int]
) -> dict:
    """The columns of a row that its teacher reads along; of another teacher's row, empty ones."""
    where = [-1] * len(head + tail)
    if reader is None:
        return {"teacher_ids": [], "teacher_at": where, "reader": -1}
    prompt = prompt_of(row, reader.tokenizer, reader.request)
    reply = reply_of(row, prompt)
    before, said = (
        reader.tokenizer(text, add_special_tokens=False)["input_ids"] for text in (prompt, reply)
    )
    for group in paired(row, ours, byte_ends(reader.tokenizer, reply) or [-1]):
        mine, theirs = group.student[0], group.teacher[0]
        if group.one_to_one and tail[mine] == said[theirs]:
            where[len(head) + mine] = len(before) + theirs
    return {"teacher_ids": before + said, "teacher_at": where, "reader": reader.place}


def paired(row: dict, ours: list[int], theirs: list[int]) -> list[Group]:
    """Groups of student and teacher tokens in the thought and in the answer, aligned apart.

    `ours` are byte ends of `template.body(...)`, `theirs` of `reply_of(row, prompt)`.
    """
    answer = len(row["answer"].encode())
    ends = ours[-1] - len(CLOSE_ANSWER) - answer, theirs[-1] - answer
    spans = [(*ends, answer)]
    if row["mode"] == "on":
        thought = len(row["thought"].encode())
        at = ends[1] - len(CLOSE_THOUGHT) - thought
        if said := row.get("reply"):  # as it was said: no layout tells the places
            spans = [(ends[0], _at(said, said.rfind(row["answer"])), answer)]
            at = _at(said, said.find(row["thought"]))
        spans.insert(0, (len(OPEN_THOUGHT), at, thought))
    return [group for span in spans for group in align(ours, theirs, *span)]


def _at(text: str, index: int) -> int:
    """The byte at which a character of a text begins."""
    return len(text[:index].encode())


class Collator:
    """Pad on the right and fetch the teachers' rows that the batch points to."""

    FILL = {"input_ids": 0, "labels": -100, "signal": -1, "chunk": -1}
    ALONG = {"teacher_ids": 0, "teacher_at": -1}

    def __init__(self, tables: Tables, depth: int = 0):
        self.tables, self.depth = tables, depth

    def __call__(self, rows: list[dict]) -> dict[str, Tensor]:
        along = "teacher_ids" in rows[0]
        batch = {
            name: nn.utils.rnn.pad_sequence(
                [torch.tensor(row[name], dtype=torch.long) for row in rows],
                batch_first=True,
                padding_value=value,
            )
            for name, value in (self.FILL | (self.ALONG if along else {})).items()
        }  # all (B, T)
        if along:
            batch["reader"] = torch.tensor([row["reader"] for row in rows])
            read = torch.tensor([len(row["teacher_ids"]) for row in rows])[:, None]
            batch["teacher_mask"] = (torch.arange(batch["teacher_ids"].shape[1]) < read).long()
        for k in range(self.depth + 1):  # here, since a GPU would have to wait for their number
            batch[f"row_{k}"], batch[f"at_{k}"] = mtp.targets(batch["labels"], k)
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
