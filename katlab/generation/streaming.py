"""One completion token by token: the engine of `local`, in a thread that can be stopped.

for token, moment in streaming.tokens(model, tokenizer, prompt, max_new_tokens=128): ...
"""

import time
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from threading import Event

import torch
from transformers import (
    GenerationConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    StoppingCriteriaList,
    TextIteratorStreamer,
)

from katlab.generation import local


class _Tokens(TextIteratorStreamer):
    """transformers' queue of a generation, with token ids instead of whole words."""

    next_tokens_are_prompt: bool

    def put(self, value):
        if self.next_tokens_are_prompt:
            self.next_tokens_are_prompt = False
        else:
            self.text_queue.put((int(value), time.perf_counter()))

    def end(self):
        self.text_queue.put(self.stop_signal)


def tokens(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: str,
    *,
    max_new_tokens: int,
    temperature: float = 0.0,
    top_p: float = 1.0,
    seed: int = 0,
) -> Generator[tuple[int, float], None, None]:
    """Yield each token id with the moment (seconds of perf_counter) it was drawn.

    The ids are those of `local.sample([prompt])` under the same settings and seed. An interrupt, or
    closing the iterator, stops the model at its next token.
    """
    model.eval()
    stop, queue = Event(), _Tokens(tokenizer)
    settings = GenerationConfig(
        **local.drawn(max_new_tokens, temperature, top_p),
        pad_token_id=tokenizer.pad_token_id,
        eos_token_id=local.stop_ids(model, tokenizer),
    )
    encoded = [tokenizer(prompt, add_special_tokens=False)["input_ids"]]
    stopped = StoppingCriteriaList(
        [lambda ids, scores, **_: torch.full((len(ids),), stop.is_set(), device=ids.device)]
    )

    def work() -> None:
        try:
            with torch.inference_mode():  # a thread has its own
                torch.manual_seed(seed * 1_000_003)
                more = {"streamer": queue, "stopping_criteria": stopped}
                local.generate(model, tokenizer, encoded, settings, **more)
        finally:
            queue.text_queue.put(queue.stop_signal)  # also where it raised

    with ThreadPoolExecutor(1) as pool:
        working = pool.submit(work)
        try:
            yield from queue
        finally:
            stop.set()
        working.result()  # what it raised
