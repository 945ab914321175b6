"""Sample completions with vLLM: all prompts in one go, a seed each, replies kept as they finish.

A process starts one engine for each shape of model, at the first prompt without a reply, since a
start takes a minute; other weights of that shape are loaded into it. vLLM runs in a child process,
and sleeps between calls: its GPU memory is then free for training and for TRL's own vLLM.

vLLM keeps its compiled graphs in the user's cache (VLLM_CACHE_ROOT), under a key that takes in the
model's path. So it is given a link whose name depends on the shape alone (`steady`), or every run
would compile again.

    ids = vllm_engine.sample(stage.config.model, model, tokenizer, prompts, max_new_tokens=128)
"""

import gc
import hashlib
import json
import os
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import cached_file

from katlab import UserError
from katlab.generation import local
from katlab.lab import Journal

# Keys of a config.json that change no graph: students of one run differ in them.
LOOSE = (
    *("_name_or_path", "transformers_version", "dtype", "use_cache"),
    *("bos_token_id", "eos_token_id", "pad_token_id"),
)
_running: dict[tuple, "Engine"] = {}
_starts: list[float] = []  # seconds that each engine of this process took to start


def sample(
    config: SimpleNamespace,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompts: list[str],
    *,
    max_new_tokens: int,
    temperature: float,
    top_p: float,
    seed: int,
    journal: Journal | None,
    on_batch: Callable[[int, int], None] | None,
) -> list[list[int]]:
    """As `engines.sample`; the weights are those of the folder that `model` was loaded from.

    They are read there again, so a model that was changed in memory has to be saved first. Replies
    repeat under a seed as far as the GPU's sums do: in bfloat16 a tie may fall either way, by what
    else is in the step. Raises UserError if vLLM is missing, cannot start, or takes no prompt so
    long.
    """
    if not prompts:
        return []
    encoded = tokenizer(prompts, add_special_tokens=False)["input_ids"]
    how: dict[str, Any] = {
        "max_tokens": max_new_tokens,
        "temperature": temperature,
        "top_p": top_p,
        "stop_token_ids": local.stop_ids(model, tokenizer),
        "ignore_eos": True,  # of the weights it was started on: what stops a reply is given here
        "detokenize": False,
    }
    results: dict[int, list[int]] = {}
    keys = [_key("vllm", str(model.name_or_path), how, seed, *one) for one in enumerate(prompts)]
    if journal is not None:
        results = {i: ids for i, key in enumerate(keys) if (ids := journal.get(key)) is not None}
    waiting = [i for i in range(len(prompts)) if i not in results]
    if waiting:
        # one seed per prompt, so that a reply does not depend on what is sampled beside it
        asked = [(encoded[i], how | {"seed": seed * 1_000_003 + i}) for i in waiting]
        with closing(_replies(model, config, asked)) as coming:  # also where `on_batch` raises
            for place, ids in coming:
                results[waiting[place]] = ids
                if journal is not None:
                    journal.put(keys[waiting[place]], ids)
                if on_batch is not None:
                    on_batch(len(results), len(prompts))
    return [results[i] for i in range(len(prompts))]


def starts() -> float:
    """Seconds that this process has waited for engines to start."""
    return sum(_starts)


def steady(model: PreTrainedModel) -> str:
    """A link to the model's folder with a name that all models of its shape have, made anew.

    Raises OSError where the folder of the user's cache cannot be written.
    """
    root = Path(os.environ.get("XDG_CACHE_HOME", "~/.cache")).expanduser() / "katlab" / "shapes"
    root.mkdir(parents=True, exist_ok=True)
    link = root / _key(_shape(model))[:16]
    part = link.with_name(f".{link.name}.{os.getpid()}")
    part.unlink(missing_ok=True)
    part.symlink_to(_folder(model), target_is_directory=True)
    part.replace(link)  # another process may read through it: it always leads somewhere
    return str(link)


class Engine:
    """vLLM on the weights of one folder at a time, asleep unless it samples."""

    def __init__(self, model: PreTrainedModel, config: SimpleNamespace):
        begun, vllm = time.perf_counter(), _vllm()
        _free_gpu()
        try:
            self.llm = vllm.LLM(
                model=steady(model),
                skip_tokenizer_init=True,  # it is given token ids and gives token ids
                generation_config="vllm",  # not what the checkpoint suggests; see `local`
                dtype=config.dtype,
                gpu_memory_utilization=config.engine_memory,
                max_model_len=-1,  # the model's own, or what fits
                enable_sleep_mode=True,
                use_tqdm_on_load=False,  # or every page has its bars
            )
        except (ValueError, RuntimeError) as error:
            told = str(error).strip().splitlines()[0].rstrip(".")
            raise UserError(
                f"vLLM could not start ({told}); change model.engine_memory (now "
                f"{config.engine_memory}), or do without: -o model.engine=transformers"
            ) from error
        self.params, self.holds = vllm.SamplingParams, ("", 0)
        self.llm.sleep(level=1)
        _starts.append(time.perf_counter() - begun)

    def replies(
        self, folder: str, asked: Sequence[tuple[list[int], dict]]
    ) -> Iterator[tuple[int, list[int]]]:
        """(place in `asked`, token ids of the reply), as they finish."""
        self._check(asked)
        _free_gpu()
        self.llm.wake_up()
        weights = folder, max(file.stat().st_mtime_ns for file in Path(folder).iterdir())
        if weights != self.holds:
            self.llm.collective_rpc("reload_weights", kwargs={"weights_path": folder})
            self.llm.reset_prefix_cache()
            self.holds = weights
        prompts = [{"prompt_token_ids": ids} for ids, _ in asked]
        params = [self.params(**how) for _, how in asked]
        ids = self.llm.enqueue(prompts, params, use_tqdm=False)
        # enqueue returns vLLM's inner ids, "7-3fa1…"; what finishes is named without the ending
        places = {inner.partition("-")[0]: place for place, inner in enumerate(ids)}
        engine = self.llm.llm_engine
        while engine.has_unfinished_requests():
            for done in engine.step():
                if done.finished:
                    yield places[done.request_id], list(done.outputs[0].token_ids)
        self.llm.sleep(level=1)

    def _check(self, asked: Sequence[tuple[list[int], dict]]) -> None:
        room = self.llm.model_config.max_model_len
        longest = max(len(ids) for ids, _ in asked)
        limit = asked[0][1]["max_tokens"]
        if longest + limit > room:
            raise UserError(
                f"A prompt of {longest} tokens and a reply of {limit} are more than the {room} "
                "tokens that vLLM holds of this model; lower the stage's max_new_tokens or "
                "vote_tokens, raise model.engine_memory, or take -o model.engine=transformers."
            )


def _replies(
    model: PreTrainedModel, config: SimpleNamespace, asked: Sequence[tuple[list[int], dict]]
) -> Generator[tuple[int, list[int]], None, None]:
    """`Engine.replies` of this process's engine for the model's shape."""
    kind = (_key(_shape(model)), config.dtype, config.engine_memory)
    if kind not in _running:
        _running[kind] = Engine(model, config)
    try:
        yield from _running[kind].replies(_folder(model), asked)
    except UserError:
        raise
    except BaseException:  # an interrupt reaches vLLM's process as well; requests are left in it
        _running.pop(kind).llm.llm_engine.engine_core.shutdown()
        raise


def _vllm() -> Any:
    """The package, told to run in a process of its own; UserError if it is not installed."""
    os.environ.setdefault("VLLM_NO_USAGE_STATS", "1")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("VLLM_WORKER_MULTIPROC_METHOD", "spawn")  # this process holds a GPU
    os.environ["VLLM_ENABLE_V1_MULTIPROCESSING"] = "1"  # TRL's own vLLM leaves it at 0
    try:
        import vllm
        import vllm.envs
    except ImportError as error:
        raise UserError(
            f"model.engine = vllm needs the package vllm ({error}): pip install '.[vllm]'; "
            "without: -o model.engine=transformers"
        ) from error
    vllm.envs.disable_envs_cache()  # vLLM reads its settings once, TRL's perhaps
    return vllm


def _free_gpu() -> None:
    """Give back what torch keeps of models that are gone: vLLM asks for memory that is free."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _folder(model: PreTrainedModel) -> str:
    """Where the weights of a loaded model lie: its folder, or the Hub's cache."""
    name = str(model.name_or_path)
    if Path(name).is_dir():
        return str(Path(name).resolve())
    return str(Path(cached_file(name, "config.json", local_files_only=True)).parent)


def _shape(model: PreTrainedModel) -> dict[str, Any]:
    """What of config.json is the same for all students of a run."""
    return {key: value for key, value in model.config.to_dict().items() if key not in LOOSE}


def _key(*what: Any) -> str:
    return hashlib.sha256(json.dumps(what, sort_keys=True, default=str).encode()).hexdigest()
