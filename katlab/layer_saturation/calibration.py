"""Texts to measure layers on: public-domain prose, code and sums, and the nano world's answers.

A batch is a dict of input_ids (B, T), attention_mask (B, T), the list domain of B names, and at
nano size labels (-100 outside the reply) and the list mode, "on" or "off".

    batches = calibration.batches(tokenizer, calibration.texts(), tokens=1024)
"""

import argparse
import inspect
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import reasoning_gym
import torch
from torch.nn.utils.rnn import pad_sequence
from transformers import PreTrainedTokenizerBase

from katlab import UserError
from katlab.lab import StageRun
from katlab.tasks.nano import build, world

PROSE = Path(__file__).parents[2] / "data_samples/calibration/in_the_year_2889.txt"


@dataclass
class Texts:
    """Batches by use: layers measured, layers damaged, children trained, and all of it held out."""

    layers: list[dict]
    damage: list[dict]
    train: list[dict]
    held_out: list[dict]


def texts() -> dict[str, list[str]]:
    """Three domains: prose (the sample), code (Python's argparse), math (generated sums)."""
    sums = reasoning_gym.create_dataset("gsm_symbolic", size=300, seed=0)
    return {
        "prose": [PROSE.read_text(encoding="utf-8")],
        "code": [inspect.getsource(argparse)],
        "math": ["\n\n".join(f"{s['question']}\nAnswer: {s['answer']}" for s in sums)],
    }


def batches(
    tokenizer: PreTrainedTokenizerBase,
    texts: Mapping[str, Sequence[str]],
    tokens: int,
    *,
    length: int = 128,
    size: int = 4,
    offset: float = 0.0,
) -> list[dict]:
    """About `tokens` tokens in sequences of `length`, an equal share per domain, `size` per batch.

    `offset` in [0, 1) starts that far into each domain's text, to hold the text before it out.
    UserError when a domain has too little text.
    """
    sequences = []
    share = max(1, round(tokens / length / len(texts)))
    for domain, documents in texts.items():
        ids = tokenizer("\n\n".join(documents), add_special_tokens=False).input_ids
        begin = int(len(ids) * offset)
        if len(ids) < begin + share * length:
            raise UserError(
                f"The {domain} text has {len(ids) - begin:,} tokens and {share * length:,} are"
                " asked for; give more text or fewer tokens."
            )
        for k in range(share):
            at = begin + k * length
            sequences.append((domain, torch.tensor(ids[at : at + length])))
    return [
        {
            "input_ids": (ids := torch.stack([s for _, s in sequences[i : i + size]])),
            "attention_mask": torch.ones_like(ids),
            "domain": [domain for domain, _ in sequences[i : i + size]],
        }
        for i in range(0, len(sequences), size)
    ]


def nano_batches(
    tokenizer: PreTrainedTokenizerBase, queries: int, seed: int, split: str, size: int
) -> list[dict]:
    """Nano-world queries with oracle replies, worked (mode "on") and direct ("off") in turn."""
    rows = world.queries(queries, seed=seed, split=split)
    samples = []
    for i, row in enumerate(rows):
        mode = "off" if i % 2 else "on"
        worked = f"{row['thought']}\n\n{row['direct']}"
        reply = row["direct"] if mode == "off" else worked
        item = build.encode(tokenizer, row["messages"], row["tools"], reply)
        samples.append((row["category"], mode, item))
    random.Random(seed).shuffle(samples)
    result = []
    for i in range(0, len(samples), size):
        part = samples[i : i + size]
        ids = [torch.tensor(item["input_ids"]) for *_, item in part]
        labels = [torch.tensor(item["labels"]) for *_, item in part]
        result.append(
            {
                "input_ids": pad_sequence(ids, True, tokenizer.pad_token_id),
                "attention_mask": pad_sequence([torch.ones_like(x) for x in ids], True, 0),
                "labels": pad_sequence(labels, True, -100),
                "domain": [domain for domain, *_ in part],
                "mode": [mode for _, mode, _ in part],
            }
        )
    return result


def of_stage(stage: StageRun, tokenizer: PreTrainedTokenizerBase) -> Texts:
    """What stage 01 measures the profile's student on: the nano world's texts, or `texts`."""
    settings, at_once = stage.settings, stage.settings.sequences_at_once
    if settings.text == "nano":
        read, held_out = (
            nano_batches(tokenizer, settings.queries, stage.seed, split, at_once)
            for split in ("train", "eval")
        )
        train = nano_batches(tokenizer, settings.recovery_queries, stage.seed, "train", at_once)
        return Texts(read, read, train, held_out)
    documents = texts()
    if settings.text:
        if not Path(settings.text).is_file():
            raise UserError(f"No text file {settings.text}; correct layer_saturation.text.")
        documents = {"text": [Path(settings.text).read_text(encoding="utf-8")]}
    cut = partial(batches, tokenizer, documents, settings.tokens)
    read, held_out = (cut(length=settings.length, size=at_once, offset=at) for at in (0.0, 0.5))
    return Texts(read, read, read, held_out)
