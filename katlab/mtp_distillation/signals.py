"""What the distillation reads: the teachers' signal, and batches that carry it token by token.

Report section 3.1. Every row is rendered twice: for the student in the KAT layout with the trigger
token in the prompt, for its teacher (DeepSeek-R1's role for think-on rows, V3's for think-off) in
the teacher's own chat template. Thought and answer, which both say, are aligned by their bytes
(`uld`), each as a segment of its own. Where a teacher has the student's own tokenizer, the paired
tokens are the same ones: it reads along in training and gives all its logits (`Reader`).

Deviation: (1) tags and the end of turn, which no teacher says as the student does, get no signal.

    columns, tables, left_out = signals.examples(rows, tokenizer, signals, max_length=512)
"""

import json
import random
import time
from collections import Counter
from collections.abc import Collection, Mapping
from itertools import repeat
from typing import NamedTuple

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from katlab import UserError, lab, models, teachers, template
from katlab.lab.settings import count
from katlab.mtp_distillation import mtp, uld

OPEN_THOUGHT, CLOSE_THOUGHT, CLOSE_ANSWER = "<think>\n", "\n</think>\n\n", "\n</answer>"


class Tables(NamedTuple):
    """The teachers' signal for the rows of a dataset, which points into these tables."""

    top: Tensor  # (M, K) float16
    tail: Tensor  # (M,) float16
    chunk_logp: Tensor  # (G,) float32


class Reader(NamedTuple):
    """A teacher with the student's own tokenizer, frozen, and its place in the trainer's list."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    request: str
    place: int


def readers(stage: lab.StageRun, tokenizer: PreTrainedTokenizerBase) -> dict[str, Reader]:
    """The teachers, by mode, that read along in training; a model that is both is loaded once.

    None of them where kl_weight is 0. `tokenizer` is the student's.
    """
    config = stage.config.model
    found: dict[str, Reader] = {}
    for mode in template.MODES if stage.settings.kl_weight else ():
        folder = models.folder_of(models.teacher(config, mode))
        if not same_tokenizer(tokenizer, models.tokenizer(folder)):
            continue
        if found and config.teacher_on == config.teacher_off:
            (first,) = found.values()
            found[mode] = first._replace(request=request(stage, mode))
        else:
            model, theirs = models.load_teacher(config, mode)
            model.requires_grad_(False)
            found[mode] = Reader(model, theirs, request(stage, mode), len(found))
    return found


def same_tokenizer(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase) -> bool:
    """Whether both cut every text alike, into the same ids; the student may have further tokens."""
    if not (student.is_fast and teacher.is_fast):
        return False
    ours, theirs = (json.loads(t.backend_tokenizer.to_str()) for t in (student, teacher))
    alike = all(ours[part] == theirs[part] for part in ("normalizer", "pre_tokenizer", "model"))
    return alike and teacher.get_vocab().items() <= student.get_vocab().items()


def request(stage: lab.StageRun, mode: str) -> str:
    """The words of [prompts] in which the teacher of a mode was asked."""
    return {"on": stage.config.prompts.think, "off": stage.config.prompts.solve}[mode]


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


def prompt_of(row: dict, tokenizer: PreTrainedTokenizerBase, request: str = "") -> str:
    """The query, as the teacher was asked, in its own chat template, to where its reply begins."""
    (row,) = teachers.asked([row], request)
    return tokenizer.apply_chat_template(
        row["messages"], tools=row["tools"], tokenize=False, add_generation_prompt=True
    )


def reply_of(row: dict, prompt: str) -> str:
    """What the row's teacher says: thought and answer in R1's layout, or the answer alone.

    A thought that was found by the profile's reply_patterns is in the `reply` as it was said. Some
    templates (R1's distils) open the thought at the end of `prompt`; it is not opened twice.
    """
    if row["mode"] == "off" or "reply" in row:
        return row["answer"] if row["mode"] == "off" else row["reply"]
    opened = next(
        n for n in (len(OPEN_THOUGHT), len("<think>"), 0) if prompt.endswith(OPEN_THOUGHT[:n])
    )
    return f"{OPEN_THOUGHT[opened:]}{row['thought']}{CLOSE_THOUGHT}{row['answer']}"


def teacher_signals(
    stage: lab.StageRun, rows: list[dict], along: Collection[str] = ()
) -> list[uld.Signal | None]:
    """What teacher_on says of the think-on rows and teacher_off of the others; rank 0 asks, once.

    The file teacher_signal.safetensors keeps top-K probabilities of every reply token, 2K + 10
    bytes each; None for a row that the teacher's tokenizer changes, and for the modes `along`,
    whose teachers read along in training.
    """
    path = stage.dir / "teacher_signal.safetensors"
    if {row["mode"] for row in rows} <= set(along):
        return [None] * len(rows)
    if stage.writes and not path.is_file():
        asked = [mode for mode in template.MODES if mode not in along]
        found = {mode: iter(read(stage, rows, mode)) for mode in asked}
        found |= {mode: repeat(None) for mode in along}
        uld.save([next(found[row["mode"]]) for row in rows], path)
    while not path.is_file():  # other ranks wait here; a collective would time out
        time.sleep(0.2)
    return uld.load(path)


def shortest_thought(stage: lab.StageRun) -> tuple[dict, uld.Signal]:
    """The row with the shortest thought and its teacher's word on it; read now if none was kept."""
    rows, path = split(stage)[0], stage.dir / "teacher_signal.safetensors"
    kept = uld.load(path) if path.is_file() else [None] * len(rows)
    pairs = [(row, word) for row, word in zip(rows, kept, strict=True) if row["thought"]]
    if any(word for _, word in pairs):
        return min((p for p in pairs if p[1]), key=lambda pair: len(pair[0]["thought"]))
    row = min((row for row, _ in pairs), key=lambda row: len(row["thought"]))
    return row, read(stage, [row], "on")[0]


def read(stage: lab.StageRun, rows: list[dict], mode: str) -> list[uld.Signal | None]:
    """The signals of one mode's rows; its teacher is in memory only here."""
    chosen = [row for row in rows if row["mode"] == mode]
    if not chosen:
        return []
    model, tokenizer = models.load_teacher(stage.config.model, mode)
    prompts = [prompt_of(row, tokenizer, request(stage, mode)) for row in chosen]
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
        ours = uld.byte_ends(tokenizer, body) if signals or reader else None
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
    for group in paired(row, ours, uld.byte_ends(reader.tokenizer, reply) or [-1]):
        mine, theirs = group.student[0], group.teacher[0]
        if group.one_to_one and tail[mine] == said[theirs]:
            where[len(head) + mine] = len(before) + theirs
    return {"teacher_ids": before + said, "teacher_at": where, "reader": reader.place}


def paired(row: dict, ours: list[int], theirs: list[int]) -> list[uld.Group]:
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
    return [group for span in spans for group in uld.align(ours, theirs, *span)]


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
