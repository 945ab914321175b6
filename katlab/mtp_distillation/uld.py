"""Universal Logit Distillation (ULD): a teacher with another tokenizer, captured once, off line.

Report section 3.1 ("ULD loss" from the teacher's sequential logits to the student and its MTP
modules); Boizard et al., arXiv 2402.12030: L = sum_t sum_i |p_i(t) - q_i(t)| with both
distributions sorted, so no vocabulary needs to match. The teacher's K largest probabilities and the
mass of its tail are all that this needs, so they are captured once and the teacher is put away.

Deviations: (1) positions are paired by the bytes they cover, not by their count, and the sorted L1
is taken only where one student token covers exactly what one teacher token covers; (2) where n
student tokens cover what m teacher tokens cover, the likelihood of the whole chunk is matched
instead, 2|P_S - P_T| (the same loss on the two outcomes "this chunk" and "anything else", after
arXiv 2503.20083); (3) beyond rank K all mass is one bucket: the error is at most the two tails.

    signals = uld.capture(teacher, teacher_tokenizer, prompts, replies, top_k=32)
    losses = uld.token_losses(hidden, head, labels, signal, top, tail)
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from katlab import UserError
from katlab.mtp_distillation.alignment import byte_ends


class Signal(NamedTuple):
    """What a teacher says of one reply; row t is its prediction *of* token t."""

    ends: Tensor  # (T,) int32, bytes of the reply up to and including token t
    top: Tensor  # (T, K) float16, sorted probabilities
    tail: Tensor  # (T,) float16, mass beyond rank K
    logp: Tensor  # (T,) float32, log-probability of the token that stands there (temperature 1)


class TokenLosses(NamedTuple):
    """Per target token; ULD and rank-1 gap are 0 where the teacher says nothing."""

    logp: Tensor  # (N,) log-probability of the target
    uld: Tensor  # (N,) sorted L1 distance, tail bucket included
    gap: Tensor  # (N,) teacher's largest probability minus the student's
    best: Tensor  # (N,) the student's own choice
    kl: Tensor  # (N,) KL(teacher, student) in nats where a teacher reads along, else 0


class Told(NamedTuple):
    """What a teacher with the student's own tokenizer says of N target tokens."""

    states: Tensor  # (N, d of the teacher) that predict them
    head: nn.Module
    paired: Tensor  # (N,) bool: where it says anything


@torch.inference_mode()
def capture(
    teacher: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    replies: list[str],
    *,
    top_k: int,
    temperature: float = 1.0,
    batch_size: int = 64,
    chunk: int = 4096,
    on_batch: Callable[[int], None] = lambda done: None,
) -> list[Signal | None]:
    """Run the teacher over `prompts` + `replies` once (teacher forcing), keep what ULD needs.

    Prompts are already in the teacher's own chat layout. The logits at position t-1 predict token
    t, so the first reply token is scored by the prompt's last position. Rows of like length share a
    batch, `chunk` rows of (T, V) float32 logits are alive at once, and `on_batch(done)` is called
    after each batch. A reply that is empty or that the tokenizer changes (`byte_ends`) is not read:
    its entry is None. Raises UserError if that is every reply.
    """
    ends = [byte_ends(tokenizer, reply) for reply in replies]
    if replies and not any(ends):
        raise UserError(
            "ULD pairs tokens by bytes, and this tokenizer's tokens do not spell its text;"
            f" use a byte-level BPE tokenizer for student and teacher (text: {replies[0][:40]!r})."
        )
    heads, tails = (tokenizer(x, add_special_tokens=False)["input_ids"] for x in (prompts, replies))
    order = [i for i in range(len(replies)) if ends[i]]
    order.sort(key=lambda i: len(heads[i]) + len(tails[i]))
    decoder, head = teacher.get_decoder(), teacher.get_output_embeddings()
    signals: list[Signal | None] = [None] * len(replies)
    for start in range(0, len(order), batch_size):
        chosen = order[start : start + batch_size]
        rows = [torch.tensor(heads[i] + tails[i]) for i in chosen]
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True).to(teacher.device)  # (B, T)
        mask = nn.utils.rnn.pad_sequence([torch.ones_like(r) for r in rows], batch_first=True)
        hidden = decoder(
            input_ids=ids, attention_mask=mask.to(ids.device), use_cache=False
        ).last_hidden_state
        for row, i in zip(hidden, chosen, strict=True):
            states = row[len(heads[i]) - 1 : len(heads[i]) + len(tails[i]) - 1]  # (T, d)
            parts = []
            for part, tokens in zip(
                states.split(chunk), torch.tensor(tails[i]).split(chunk), strict=True
            ):
                logits = head(part).float()  # (t, V)
                top, tail = sorted_top((logits / temperature).softmax(-1), top_k)
                logp = logits.log_softmax(-1).gather(-1, tokens[:, None].to(logits.device))[:, 0]
                parts.append((top.half().cpu(), tail.half().cpu(), logp.cpu()))
            columns = (torch.cat(column) for column in zip(*parts, strict=True))
            signals[i] = Signal(torch.tensor(ends[i], dtype=torch.int32), *columns)
        on_batch(start + len(chosen))
    return signals


def save(signals: list[Signal | None], path: Path) -> None:
    """Write signals as one safetensors file: the four tables end to end, and the row lengths.

    A row that was not read has length 0.
    """
    columns = zip(*filter(None, signals), strict=True)
    table = {name: torch.cat(c) for name, c in zip(Signal._fields, columns, strict=True)}
    table["lengths"] = torch.tensor([len(signal.ends) if signal else 0 for signal in signals])
    part = path.with_suffix(".part")
    save_file(table, part)
    part.replace(path)


def load(path: Path) -> list[Signal | None]:
    """Read what `save` wrote."""
    table = load_file(path)
    lengths = table.pop("lengths").tolist()
    split = [table[name].split(lengths) for name in Signal._fields]
    return [Signal(*parts) if len(parts[0]) else None for parts in zip(*split, strict=True)]


def shorter(signal: Signal, top_k: int) -> Signal:
    """The same signal with the `top_k` largest probabilities alone; the others join the tail."""
    rest = signal.top[:, top_k:].float().sum(-1)
    return signal._replace(top=signal.top[:, :top_k], tail=signal.tail + rest.half())


def sorted_top(probabilities: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """The k largest probabilities in order (zero-padded if V < k) and the mass of the rest.

    (..., V) -> (..., k), (...). The zero padding is ULD's for vocabularies of different size.
    """
    top = probabilities.topk(min(k, probabilities.shape[-1]), dim=-1).values
    tail = (1.0 - top.sum(-1)).clamp(min=0.0)
    return nn.functional.pad(top, (0, k - top.shape[-1])), tail


def sorted_l1(q: Tensor, q_tail: Tensor, p: Tensor, p_tail: Tensor) -> Tensor:
    """ULD of two sorted distributions: sum over ranks |p - q|, plus the tail bucket. -> (...)"""
    return (q - p).abs().sum(-1) + (q_tail - p_tail).abs()


def token_losses(
    hidden: Tensor,
    head: nn.Module,
    labels: Tensor,
    signal: Tensor,
    top: Tensor,
    tail: Tensor,
    *,
    temperature: float = 1.0,
    chunk: int = 4096,
    told: Sequence[Told] = (),
) -> TokenLosses:
    """Log-likelihood, ULD and KL of N target tokens from the states that predict them.

    hidden (N, d), labels (N,), signal (N,) rows of `top` (M, K) and `tail` (M,), -1 where the
    teacher says nothing. Only `chunk` rows of (N, V) float32 logits are alive at once; more than
    one chunk is computed again in the backward pass. `temperature` divides the student's logits in
    the ULD term, as `capture` divided the teacher's, and both sides' in the KL (without a factor
    T^2, as in TRL). Teachers `told` give their logits in full: over the rows that both matrices
    have, since a student may have further tokens and either may be padded.
    """

    def part(hidden, labels, signal, *states):  # (n, d), (n,), (n,); (n, d'), (n,) per teacher
        logits = head(hidden).float().to(hidden.device)  # (n, V)
        all_logp = logits.log_softmax(-1)
        logp = all_logp.gather(-1, labels[:, None])[:, 0]
        kl = torch.zeros_like(logp)
        for teacher, said, by in zip(told, states[::2], states[1::2], strict=True):
            q = all_logp if temperature == 1.0 else (logits / temperature).log_softmax(-1)
            kl = kl + torch.where(by, divergence(teacher.head(said), q, temperature), 0.0)
        if not len(top):  # nobody says anything sorted, and a GPU need not wait to learn it
            nothing = torch.zeros_like(logp)
            return logp, nothing, nothing, logits.argmax(-1), kl
        paired = signal >= 0
        p = top[signal[paired]].to(logits.dtype)  # (m, K)
        q, q_tail = sorted_top((logits[paired] / temperature).softmax(-1), top.shape[-1])
        uld = logp.new_zeros(len(logp)).masked_scatter(
            paired, sorted_l1(q, q_tail, p, tail[signal[paired]].to(logits.dtype))
        )
        gap = logp.new_zeros(len(logp)).masked_scatter(paired, (p[:, 0] - q[:, 0]).detach())
        return logp, uld, gap, logits.argmax(-1), kl

    flat = [hidden, labels, signal, *(t for one in told for t in (one.states, one.paired))]
    rows = list(zip(*(tensor.split(chunk) for tensor in flat), strict=True))
    if len(rows) == 1:
        return TokenLosses(*part(*rows[0]))
    parts = [checkpoint(part, *row, use_reentrant=False, preserve_rng_state=False) for row in rows]
    return TokenLosses(*(torch.cat(column) for column in zip(*parts, strict=True)))


def divergence(logits: Tensor, student_logp: Tensor, temperature: float = 1.0) -> Tensor:
    """KL(teacher, student) in nats: logits (N, V) of the teacher, student_logp (N, V') -> (N,).

    The teacher's distribution is over the rows that both have; it has no gradient.
    """
    width = min(logits.shape[-1], student_logp.shape[-1])
    logp = (logits.detach()[:, :width].float() / temperature).log_softmax(-1)
    return (logp.exp() * (logp - student_logp[:, :width])).sum(-1)


def chunk_losses(logp: Tensor, group: Tensor, teacher_logp: Tensor) -> Tensor:
    """2|P_S - P_T| of each n-to-m chunk: the ULD of "this chunk" against "anything else".

    logp (N,), group (N,) chunk per token or -1, teacher_logp (G,) -> (G,).
    """
    if not len(teacher_logp):
        return teacher_logp
    inside = group >= 0
    ours = torch.zeros_like(teacher_logp).index_add(0, group[inside], logp[inside])
    return 2.0 * (ours.exp() - teacher_logp.exp()).abs()
