"""A layer plan as a recipe of arcee-ai/mergekit, for whoever prefers that tool.

recipe = mergekit.recipe(Path("Qwen2.5-32B"), plan, child_config, names_of_the_childs_tensors)
"""

import json
from collections.abc import Iterable
from pathlib import Path

from katlab.layer_saturation.architectures import layer_of, shift, writer_of
from katlab.layer_saturation.plan import LayerPlan

FILE = "mergekit.yaml"


def recipe(source: Path, plan: LayerPlan, config: dict, names: Iterable[str]) -> str:
    """The passthrough recipe; a comment alone where mergekit cannot make this child."""
    kind = config["model_type"]
    if shift(kind) and set(plan.scale) != {1.0}:
        return f"# {kind} has 1 + weight multiplied, which mergekit cannot say.\n"
    tails = [place[1] for name in names if (place := layer_of(name))]
    writers = {writer_of(tail, kind).rpartition("*.")[2] for tail in tails} - {""}
    dtype = config.get("dtype") or config.get("torch_dtype") or "bfloat16"
    lines = ["merge_method: passthrough", f"dtype: {dtype}", "slices:"]
    i = 0
    while i < plan.child_layers:
        first, scale, end = plan.source[i], plan.scale[i], i + 1
        while end < plan.child_layers and (plan.source[end], plan.scale[end]) == (
            first + end - i,
            scale,
        ):
            end += 1
        lines += [
            "  - sources:",
            f"      - model: {json.dumps(str(source))}",
            f"        layer_range: [{first}, {first + end - i}]",
        ]
        if scale != 1.0:
            lines += ["        parameters:", "          scale:"]
            for part in sorted(writers):
                lines += [f"            - filter: {part}", f"              value: {scale}"]
            lines.append("            - value: 1.0")
        i = end
    return "\n".join(lines) + "\n"
