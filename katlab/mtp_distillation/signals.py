"""What the distillation reads: the teachers' signal, and batches that carry it token by token.

Report section 3.1. Every row is rendered twice: for the student in the KAT layout with the trigger
token in the prompt, for its teacher (DeepSeek-R1's role for think-on rows, V3's for think-off) in
the teacher's own chat template. Thought and answer, which both say, are aligned by their bytes
(`uld`), each as a segment of its own.

Deviation: (1) tags and the end of turn, which no teacher says as the student does, get no signal.

    dataset, tables = signals.examples(rows, tokenizer, signals, max_length=512)
"""

import random
from typing import NamedTuple

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from katlab import UserError, lab, models, template
from katlab.lab.rows import read_jsonl
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
    corpus = read_jsonl(path)
    random.Random(stage.seed).shuffle(corpus)
    held = stage.settings.held_out
    rows = corpus[held : held + stage.settings.max_rows]
    if not rows:
        raise UserError(
            f"The corpus has {len(corpus)} rows and {held} are held out; make more in stage 02."
        )
    return rows, corpus[:held]


def reply_of(row: dict) -> str:
    """What the row's teacher says: thought and answer in R1's layout, or the answer alone."""
    if row["mode"] == "off":
        return row["answer"]
    return f"{OPEN_THOUGHT}{row['thought']}{CLOSE_THOUGHT}{row['answer']}"


def teacher_signals(stage: lab.StageRun, rows: list[dict]) -> list[uld.Signal]:
    """What teacher_on says of the think-on rows and teacher_off of the others, from disk if there.

    The prompt is the teacher's own chat template. The file teacher_signal.safetensors keeps top-K
    probabilities of every reply token, 2K + 10 bytes each.
    """
    path = stage.dir / "teacher_signal.safetensors"
    if path.is_file():
        return uld.load(path)
    signals: list[uld.Signal | None] = [None] * len(rows)
    for mode in template.MODES:
        chosen = [i for i, row in enumerate(rows) if row["mode"] == mode]
        folder = vars(stage.config.model)[f"teacher_{mode}"]
        model, tokenizer = models.load_from(folder, stage.config.model)
        if torch.cuda.is_available() and stage.config.model.quantize == "none":
            model.to("cuda")
        prompts = [
            tokenizer.apply_chat_template(
                rows[i]["messages"],
                tools=rows[i]["tools"],
                tokenize=False,
                add_generation_prompt=True,
            )
            for i in chosen
        ]
        bar = stage.bar(len(chosen), f"reading with the think-{mode} teacher")
        found = uld.capture(
            model,
            tokenizer,
            prompts,
            [reply_of(rows[i]) for i in chosen],
            top_k=stage.settings.uld_top_k,
            temperature=stage.settings.temperature,
            batch_size=stage.settings.capture_batch_size,
            on_batch=lambda done, total, bar=bar: bar.to(done),
        )
        bar.close()
        for i, signal in zip(chosen, found, strict=True):
            signals[i] = signal
    if stage.writes:
        uld.save(signals, path)
    return signals


def examples(
    rows: list[dict],
    tokenizer: PreTrainedTokenizerBase,
    signals: list[uld.Signal] | None,
    max_length: int,
) -> tuple[Dataset, Tables]:
    """Tokens, labels and the teacher's word on each token, as columns and tables.

    Columns (T,): input_ids; labels, -100 on the prompt (the trigger is its end); signal, row of
    `Tables.top` about this token or -1; chunk, row of `Tables.chunk_logp` or -1. Without `signals`
    both are -1 throughout. Rows longer than `max_length` tokens are left out.
    """
    columns, chunk_logp, start = [], [], 0
    for index, row in enumerate(rows):
        prompt = template.prompt(tokenizer, row["messages"], row["tools"], mode=row["mode"])
        body = template.body(row["mode"], row["answer"], row["thought"])
        head = tokenizer(prompt, add_special_tokens=False)["input_ids"]
        tail = tokenizer(body, add_special_tokens=False)["input_ids"] + [tokenizer.eos_token_id]
        signal, chunk = [-1] * len(head + tail), [-1] * len(head + tail)
        if signals is not None:
            teacher = signals[index]
            for group in paired(row, uld.byte_ends(tokenizer, body), teacher.ends.tolist()):
                ours, theirs = slice(*group.student), slice(*group.teacher)
                if group.one_to_one:
                    signal[len(head) + ours.start] = start + theirs.start
                else:
                    for at in range(len(head) + ours.start, len(head) + ours.stop):
                        chunk[at] = len(chunk_logp)
                    chunk_logp.append(float(teacher.logp[theirs].sum()))
            start += len(teacher.ends)
        labels = [-100] * len(head) + tail
        if len(labels) <= max_length:
            ids = head + tail
            columns.append({"input_ids": ids, "labels": labels, "signal": signal, "chunk": chunk})
    if not columns:
        raise UserError(f"Every row is longer than {max_length} tokens; raise max_length.")
    top = torch.cat([s.top for s in signals]) if signals else torch.empty(0, 1)
    tail = torch.cat([s.tail for s in signals]) if signals else torch.empty(0)
    return Dataset.from_list(columns), Tables(top, tail, torch.tensor(chunk_logp))


def paired(row: dict, ours: list[int], theirs: list[int]) -> list[uld.Group]:
    """Groups of student and teacher tokens in the thought and in the answer, aligned apart.

    `ours` are byte ends of `template.body(...)`, `theirs` of `reply_of(row)`.
    """
    answer = len(row["answer"].encode())
    at_answer = (ours[-1] - len(CLOSE_ANSWER) - answer, theirs[-1] - answer, answer)
    spans = [at_answer]
    if row["mode"] == "on":
        spans.insert(0, (len(OPEN_THOUGHT), len(OPEN_THOUGHT), len(row["thought"].encode())))
    return [group for span in spans for group in uld.align(ours, theirs, *span)]


class Collator:
    """Pad on the right and fetch the teachers' rows that the batch points to."""

    def __init__(self, tables: Tables, pad_token_id: int):
        self.tables = tables
        self.fill = {"input_ids": pad_token_id, "labels": -100, "signal": -1, "chunk": -1}

    def __call__(self, rows: list[dict]) -> dict[str, Tensor]:
        batch = {
            name: nn.utils.rnn.pad_sequence(
                [torch.tensor(row[name]) for row in rows], batch_first=True, padding_value=value
            )
            for name, value in self.fill.items()
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
