"""A stand-in for the package vllm: the names and checks of 0.26, transformers behind them.

It holds the adapter to what vLLM does: nothing is drawn asleep, requests end in another order than
they came, under other ids than `enqueue` gave, and only weights that were loaded answer.
"""

import types
from dataclasses import dataclass, field, fields
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, GenerationConfig

# Further arguments of vLLM's engine, as LLM(**kwargs) passes them on; test_engines compares them.
ENGINE = {
    "load_format", "max_model_len", "max_num_seqs", "max_num_batched_tokens", "enable_sleep_mode",
    "generation_config", "logprobs_mode", "disable_log_stats", "enable_prefix_caching",
    "distributed_executor_backend", "model_impl", "use_tqdm_on_load",
}  # fmt: skip
STEP = 3  # requests that one step of the engine ends


@dataclass
class SamplingParams:
    """The settings of a request; wrong names and values are refused as vLLM refuses them."""

    n: int = 1
    repetition_penalty: float = 1.0
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None
    stop: list[str] | None = None
    stop_token_ids: list[int] | None = None
    ignore_eos: bool = False
    max_tokens: int | None = 16
    min_tokens: int = 0
    logprobs: int | None = None
    detokenize: bool = True
    skip_special_tokens: bool = True

    def __post_init__(self):
        if not 0 <= self.temperature <= 2 or not 0 < self.top_p <= 1:
            raise ValueError("temperature must be in [0, 2], top_p in (0, 1]")
        if self.max_tokens is not None and self.max_tokens < 1:
            raise ValueError("max_tokens must be at least 1")
        if self.stop and not self.detokenize:
            raise ValueError("stop strings are only supported when detokenize is True")
        if not all(isinstance(token, int) for token in self.stop_token_ids or []):
            raise ValueError("stop_token_ids must contain only integers")


@dataclass
class Output:
    """What a request has come to."""

    request_id: str
    outputs: list
    finished: bool


@dataclass
class Core:
    """The engine's process; `shutdown` ends it."""

    alive: bool = True

    def shutdown(self, timeout: float | None = None):
        self.alive = False


@dataclass
class LLMEngine:
    """Requests wait here; a step ends the last ones first."""

    llm: "LLM"
    waiting: list = field(default_factory=list)
    engine_core: Core = field(default_factory=Core)

    def has_unfinished_requests(self) -> bool:
        return bool(self.waiting)

    def step(self) -> list[Output]:
        assert self.engine_core.alive and self.llm.awake and self.llm.weights is not None
        chosen, self.waiting = self.waiting[-STEP:], self.waiting[:-STEP]
        early = [Output(one[0], [types.SimpleNamespace(token_ids=())], False) for one in chosen[:1]]
        return early + [Output(name, [self.draw(*one)], True) for name, *one in reversed(chosen)]

    def draw(self, ids: list[int], params: SamplingParams) -> types.SimpleNamespace:
        """One request with a generator of its own, as vLLM draws it."""
        ends = list(params.stop_token_ids or [])
        if not params.ignore_eos:
            listed = self.llm.weights.generation_config.eos_token_id
            ends += listed if isinstance(listed, list) else [listed]
        greedy = params.temperature == 0
        how = {} if greedy else {"temperature": params.temperature, "top_p": params.top_p}
        settings = GenerationConfig(
            max_new_tokens=params.max_tokens, do_sample=not greedy, top_k=0, eos_token_id=ends,
            pad_token_id=0, **how,
        )  # fmt: skip
        torch.manual_seed(params.seed if params.seed is not None else torch.seed() % 2**31)
        self.llm.weights.generation_config = GenerationConfig()
        out = self.llm.weights.generate(torch.tensor([ids]), generation_config=settings)
        return types.SimpleNamespace(token_ids=tuple(out[0, len(ids) :].tolist()))


class LLM:
    """The entry point for offline generation."""

    made: list["LLM"] = []
    """Every engine that was started, in order."""

    def __init__(
        self,
        model: str,
        *,
        skip_tokenizer_init: bool = False,
        dtype: str = "auto",
        seed: int = 0,
        gpu_memory_utilization: float = 0.92,
        enforce_eager: bool = False,
        **kwargs,
    ):
        if unknown := set(kwargs) - ENGINE:
            raise TypeError(f"EngineArgs got unexpected keyword arguments {unknown}")
        if gpu_memory_utilization > 0.95:
            raise ValueError("Free memory on device is less than desired.\nDecrease it.")
        assert Path(model).is_symlink(), "the compile cache is found by the path"
        self.started_from, self.loads, self.slept = model, [], []
        self.dtype, self.sleeps = dtype, kwargs.get("enable_sleep_mode", False)
        self.awake, self.counter = True, 0
        self.weights = None  # of the folder it was started on: nobody may draw from them
        self.llm_engine = LLMEngine(self)
        longest = AutoModelForCausalLM.from_pretrained(model).config.max_position_embeddings
        self.model_config = types.SimpleNamespace(max_model_len=longest)
        LLM.made.append(self)

    def enqueue(
        self, prompts, sampling_params=None, lora_request=None, priority=None, use_tqdm=True
    ):
        assert self.awake, "asleep"
        inner = []
        for prompt, params in zip(prompts, sampling_params, strict=True):
            assert set(prompt) == {"prompt_token_ids"} and prompt["prompt_token_ids"]
            name = str(self.counter)
            self.counter += 1
            self.llm_engine.waiting.append((name, prompt["prompt_token_ids"], params))
            inner.append(f"{name}-3fa1b2c{len(inner) % 10}")
        return inner

    def sleep(self, level: int = 1, mode: str = "abort"):
        assert self.sleeps and self.awake and not self.llm_engine.waiting
        self.awake = False
        self.slept.append(level)

    def wake_up(self, tags: list[str] | None = None):
        assert not self.awake
        self.awake = True

    def collective_rpc(self, method: str, timeout=None, args=(), kwargs=None):
        assert method == "reload_weights" and set(kwargs) == {"weights_path"} and self.awake
        folder = kwargs["weights_path"]
        self.weights = AutoModelForCausalLM.from_pretrained(folder, dtype=self.dtype).eval()
        self.loads.append(folder)
        self.fresh = False

    def reset_prefix_cache(self, reset_running_requests=False, reset_connector=False) -> bool:
        self.fresh = True
        return True


def names() -> set[str]:
    """Settings of a request that the stand-in knows."""
    return {one.name for one in fields(SamplingParams)}


def module() -> dict[str, types.ModuleType]:
    """The package and its submodule, for sys.modules."""
    LLM.made = []
    package, envs = types.ModuleType("vllm"), types.ModuleType("vllm.envs")
    envs.disable_envs_cache = lambda: None
    package.LLM, package.SamplingParams, package.envs = LLM, SamplingParams, envs
    return {"vllm": package, "vllm.envs": envs}
