"""One function for all engines: who draws the tokens says `[model] engine`.

Both take the same sampling settings, end at the same tokens and keep replies as they come; a test
holds them to that. An engine's draws repeat under its own seed, they are not the other engine's.

    ids = engines.sample(stage.config.model, model, tokenizer, prompts, max_new_tokens=128)
"""

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from katlab import speed
from katlab.generation import local, vllm_engine
from katlab.lab import Journal


def sample(
    config: SimpleNamespace,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    *,
    max_new_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    journal: Journal | None = None,
    on_batch: Callable[[int, int], None] | None = None,
) -> list[list[int]]:
    """Return the generated token ids (end token included) of each prompt, in their order.

    `config` is a profile's [model]. Several samples of a prompt are the prompt several times, a
    prefilled reply is the end of its prompt. Temperature 0 is greedy. What a `journal` holds is
    read, not sampled again, and how fast the others came is noted beside it (`speed`), an engine's
    start left out; `on_batch(done, total)` is called as replies come. Raises UserError where the
    engine cannot be had, or the tokenizer has no pad token.
    """
    kept = None if journal is None else _Counting(journal)
    begun, starts = speed.now(), vllm_engine.starts()
    how: dict[str, Any] = {
        "max_new_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "seed": seed,
        "journal": kept,
        "on_batch": on_batch,
    }
    if config.engine == "vllm":
        ids = vllm_engine.sample(config, model, tokenizer, prompts, **how)
    else:
        ids = local.sample(model, tokenizer, prompts, batch_size=config.sample_batch, **how)
    if kept is not None and kept.tokens and kept.writes:
        seconds = speed.now() - begun - (vllm_engine.starts() - starts)
        speed.note(kept.path.parent, "sampling", "replies", kept.tokens, seconds)
    return ids


class _Counting:
    """A journal that counts the tokens of the replies it is given."""

    def __init__(self, journal: Journal):
        self.get, self._put = journal.get, journal.put
        self.path, self.writes, self.tokens = journal.path, journal.writes, 0

    def put(self, key: object, value: list) -> None:
        """Keep a reply's token ids, or those of several."""
        many = value and isinstance(value[0], list)
        self.tokens += sum(map(len, value)) if many else len(value)
        self._put(key, value)
