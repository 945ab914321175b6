"""The child's config.json: what goes by layer follows the plan, also where its class derives it.

configuration.of_child(read_config(source), plan)
"""

import copy
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager

import transformers
from transformers import CONFIG_MAPPING, PreTrainedConfig

from katlab import UserError
from katlab.layer_saturation.architectures import COUNTS, INDICES, LISTS, STEPS, child_config
from katlab.layer_saturation.plan import LayerPlan

MAPPED = {"num_hidden_layers", "architectures", *LISTS, *INDICES, *COUNTS, *STEPS}
GOES_BY_LAYER = re.compile(
    r"(^|_)(layers?|idxs|indices)(_|$)|pattern|interval|period|every|_freq$|_step$"
)


def of_child(config: dict, plan: LayerPlan) -> dict:
    """The child's config.json: `child_config`, and in words what its class would derive otherwise.

    Where a class makes a list of layers of an interval (every sixth attends in full), the child's
    list is written out and the interval left out. Raises UserError for an architecture that
    transformers does not know, and for a key that goes by layer in no known way.
    """
    with silent():
        child, own = child_config(config, plan), _lists(typed(config))
        default = CONFIG_MAPPING[config["model_type"]]()
        unlisted = {key: value for key, value in config.items() if key not in LISTS}
        for key, value in config.items():
            if not _goes_by_layer(key, value, plan.parent_layers):
                continue
            if not isinstance(value, list) and _decides(key, unlisted):
                del child[key]
            elif not (_is_word(value, plan.parent_layers) or hasattr(default, key)):
                raise UserError(
                    f"{key} in config.json goes by layer and cannot be mapped to a deeper model;"
                    " upscale a model without it."
                )
        mapped = {key: [entries[i] for i in plan.source] for key, entries in own.items()}
        derived = _lists(typed(child))
        child |= {key: mapped[key] for key in mapped if derived.get(key) != mapped[key]}
        typed(child)
    return child


def _is_word(value: object, layers: int) -> bool:
    """Whether a value is a name, and neither numbers of layers ("0-3") nor a letter for each."""
    return isinstance(value, str) and not re.search(r"\d", value) and len(value) != layers


def _decides(key: str, unlisted: dict) -> bool:
    """Whether the class makes other lists of layers when a key of the configuration is 1."""
    try:
        return _lists(typed(unlisted)) != _lists(typed(unlisted | {key: 1}))
    except UserError:  # only in words, which the class does not read without its lists
        return True


def _goes_by_layer(key: str, value: object, layers: int) -> bool:
    """Whether a key that `child_config` does not map looks like one that goes by layer."""
    if key in MAPPED or key.rstrip("s").endswith("token_id"):
        return False
    if isinstance(value, list) and len(value) == layers:
        return True
    states = value not in (0, 1) if isinstance(value, int) else isinstance(value, list | str)
    return bool(states and value and GOES_BY_LAYER.search(key))


def _lists(config: PreTrainedConfig) -> dict[str, list]:
    """The lists of layers that a class has made of its configuration."""
    return {key: v for key in LISTS if isinstance(v := getattr(config, key, None), list)}


def typed(config: dict) -> PreTrainedConfig:
    """A config.json as transformers reads it; UserError when it does not."""
    kind = config["model_type"]
    if kind not in CONFIG_MAPPING:
        raise UserError(
            f"transformers {transformers.__version__} knows no {kind!r} model; install a release"
            " that does."
        )
    try:
        return CONFIG_MAPPING[kind].from_dict(copy.deepcopy(config))
    except Exception as error:  # whatever the class finds wrong
        raise UserError(f"{kind} cannot be configured so ({said(error)}).") from error


@contextmanager
def silent() -> Iterator[None]:
    """Within the block transformers logs nothing; what it finds wrong is one sentence of ours."""
    log = transformers.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity(logging.CRITICAL)
    log.disable_progress_bar()
    try:
        yield
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def said(error: Exception) -> str:
    """The first line of what an error says."""
    return f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"[:120]
