"""What the teachers say of the rows: read once and kept, or along in training.

Report section 3.1. A row's teacher (DeepSeek-R1's role for think-on rows, V3's for think-off) reads
query and reply in its own chat template. Where it has the student's own tokenizer, the tokens that
both say are the same ones: it reads along in training and gives all its logits (`Reader`).

    rows, held_out = signals.split(stage);  signals.teacher_signals(stage, rows)
"""

import json
import random
import time
from collections.abc import Collection
from itertools import repeat
from typing import NamedTuple

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from katlab import UserError, lab, models, teachers, template, weights
from katlab.lab.settings import count
from katlab.mtp_distillation import uld

OPEN_THOUGHT, CLOSE_THOUGHT, CLOSE_ANSWER = "<think>\n", "\n</think>\n\n", "\n</answer>"


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
        folder = weights.folder_of(models.teacher(config, mode))
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
