"""`katlab upscale plan|apply|verify`: depth upscaling of model folders from the command line.

katlab upscale plan Qwen2.5-32B --choice list --layers 40-55 --out plan.json
katlab upscale apply Qwen2.5-32B KAT-40B --plan plan.json
katlab upscale verify Qwen2.5-32B KAT-40B --text held_out.txt
"""

import argparse
import math
from pathlib import Path
from types import SimpleNamespace

from katlab import UserError
from katlab.lab.notebook import quiet
from katlab.layer_saturation import plan as layer_plan
from katlab.layer_saturation import safetensors_layout, writer

MOST_LAYERS = 10_000


def register(upscale: argparse.ArgumentParser) -> None:
    """Give `katlab upscale` its three commands."""
    commands = upscale.add_subparsers(title="commands", metavar="COMMAND")
    plan = commands.add_parser(
        "plan",
        help="choose layers; predict loss, parameters and cost",
        epilog="examples:\n  katlab upscale plan Qwen2.5-32B --choice list --layers 40-55\n"
        "  katlab upscale plan Qwen2.5-0.5B --text held_out.txt --out plan.json",
    )
    plan.add_argument("source", type=Path, help="folder of the parent (config.json, safetensors)")
    plan.add_argument(
        "--out", type=Path, default=Path("layer_plan.json"),
        help="plan to write (default: %(default)s)",
    )  # fmt: skip
    plan.set_defaults(act=run_plan)
    apply = commands.add_parser(
        "apply",
        help="write the child, shard by shard",
        epilog="examples:\n  katlab upscale apply Qwen2.5-32B KAT-40B --plan plan.json\n"
        "  katlab upscale apply Qwen2.5-32B KAT-40B --layers 40-55 --start copy",
    )
    apply.add_argument("source", type=Path, help="folder of the parent")
    apply.add_argument("target", type=Path, help="new folder for the child")
    apply.add_argument("--plan", type=Path, help="plan by `katlab upscale plan`; else --layers")
    apply.add_argument(
        "--shard-gb", type=float, default=5.0, help="largest output shard, GB (default: 5)"
    )
    apply.set_defaults(act=run_apply)
    for parser in (plan, apply):
        options = parser.add_argument_group("plan")
        options.add_argument("--add", type=int, default=0, help="new layers (default: a quarter)")
        options.add_argument(
            "--choice", default="similarity", choices=layer_plan.CHOICES, metavar="HOW",
            help=f"which layers are copied: {', '.join(layer_plan.CHOICES)} (default: %(default)s)",
        )  # fmt: skip
        options.add_argument("--layers", default="", help="these, as 8,11-14, instead of --choice")
        options.add_argument(
            "--order", default="interleaved", choices=layer_plan.ORDERS,
            help="where a copy stands (default: %(default)s)",
        )  # fmt: skip
        options.add_argument(
            "--start", default="half-step", choices=layer_plan.STARTS,
            help="how a copy begins (default: %(default)s; the report's: copy)",
        )  # fmt: skip
        options.add_argument(
            "--alpha", type=float, default=0.25, help="factor of --start alpha (default: 0.25)"
        )
    plan.add_argument("--text", type=Path, help="text to measure layers and predict the loss on")
    verify = commands.add_parser(
        "verify",
        help="compare the child's files with its parent's",
        epilog="examples:\n  katlab upscale verify Qwen2.5-32B KAT-40B --text held_out.txt",
    )
    verify.add_argument("source", type=Path, help="folder of the parent")
    verify.add_argument("target", type=Path, help="folder of the child")
    verify.add_argument("--text", type=Path, help="held-out text: load both and compare the loss")
    verify.set_defaults(act=run_verify)
    for parser in (plan, verify):
        options = parser.add_argument_group("with --text")
        options.add_argument("--tokens", type=int, default=1024, help="how much (default: 1024)")
        options.add_argument("--device-map", default="", help="auto: over all GPUs (default: one)")
        options.add_argument(
            "--quantize", default="none", choices=("none", "4bit", "8bit"), help="(default: none)"
        )


def parse_layers(text: str) -> list[int]:
    """Layer numbers of "8,11-14"; UserError when it is anything else."""
    layers: list[int] = []
    try:
        for part in filter(None, text.split(",")):
            first, _, last = part.partition("-")
            if not 0 <= int(first) <= int(last or first) < MOST_LAYERS:
                raise ValueError(part)
            layers += range(int(first), int(last or first) + 1)
    except ValueError as error:
        raise UserError(f"--layers {text!r} is no list of layers; write it as 8,11-14.") from error
    return layers


def _plan(arguments: argparse.Namespace, measured: dict) -> layer_plan.LayerPlan:
    config = safetensors_layout.read_config(arguments.source)
    return layer_plan.plan(
        config["num_hidden_layers"],
        arguments.add,
        choice="list" if arguments.layers else arguments.choice,
        order=arguments.order,
        start=arguments.start,
        alpha=arguments.alpha,
        chosen=parse_layers(arguments.layers),
        **measured,
    )


def _load(folder: Path, arguments: argparse.Namespace):
    from katlab import models

    written = safetensors_layout.read_config(folder)
    config = SimpleNamespace(
        student=str(folder),
        gguf_file="",
        dtype=written.get("dtype") or written.get("torch_dtype") or "bfloat16",
        quantize=arguments.quantize,
        device_map=arguments.device_map,
    )
    return models.load(config)


def _batches(tokenizer, text: Path, tokens: int) -> list[dict]:
    from katlab.layer_saturation import calibration

    if tokens < 1:
        raise UserError(f"--tokens {tokens} measures nothing; give a number above 0, as 1024.")
    try:
        held_out = text.read_text(encoding="utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"No UTF-8 text file {text}; give one with --text.") from error
    return calibration.batches(tokenizer, {"text": [held_out]}, tokens)


def run_plan(arguments: argparse.Namespace) -> None:
    """Print what the child will be and cost, and write the plan."""
    measured, model, batches = {}, None, []
    safetensors_layout.read_config(arguments.source)  # its faults show before any other
    if arguments.out.is_dir() or not arguments.out.parent.is_dir():
        raise UserError(f"{arguments.out} cannot be a file; name one, as --out plan.json.")
    measures = not arguments.layers and arguments.choice not in ("evenly", "list")
    if measures and arguments.text is None:
        raise UserError(
            f"Choosing by {arguments.choice} measures the model; give --text FILE (or --layers)."
        )
    if arguments.text is not None:
        quiet()
        from katlab.layer_saturation import damage as layer_damage
        from katlab.layer_saturation import similarity

        model, tokenizer = _load(arguments.source, arguments)
        batches = _batches(tokenizer, arguments.text, arguments.tokens)
        report = similarity.measure(model, batches)
        table = report.overall
        if arguments.choice in ("skip-damage", "repeat-damage"):
            damage = layer_damage.measure(model, batches).query("group == 'all'")
            table = table.merge(damage, on=["group", "layer"])
        measured = {"table": table, "angular": report.angular}
    plan = _plan(arguments, measured)
    facts = safetensors_layout.sizes_of(arguments.source, plan)
    print(
        f"layers      {facts['parent_layers']} -> {facts['child_layers']} ({plan.start},"
        f" {plan.order}); copied: {', '.join(map(str, plan.duplicated))}"
    )
    for key, unit, scale in (
        ("parameters", "B", 1e9),
        ("kv_bytes_per_token", "KiB", 1024),
        ("flops_per_token", "G", 1e9),
    ):
        if f"child_{key}" in facts:
            parent, child = facts[f"parent_{key}"] / scale, facts[f"child_{key}"] / scale
            print(f"{key:<19} {parent:.4g} -> {child:.4g} {unit}")
    if model is None:
        print("loss change not predicted: give --text FILE to measure it")
    else:
        from katlab.layer_saturation import child

        predicted = child.predict(model, plan, batches)
        print(
            f"loss        {predicted['parent_loss']:.4f} -> {predicted['child_loss']:.4f} nats"
            f" ({predicted['loss_change']:+.4f}, measured in memory)"
        )
    plan.save(arguments.out)
    print(f"wrote {arguments.out}")


def run_apply(arguments: argparse.Namespace) -> None:
    """Write the child folder."""
    if not 0 < arguments.shard_gb < math.inf:
        raise UserError(f"--shard-gb {arguments.shard_gb} is no size; give GB above 0, as 5.")
    quiet()
    if arguments.plan is not None:
        plan = layer_plan.LayerPlan.load(arguments.plan)
    else:
        plan = _plan(arguments, {})
    record = writer.write(
        arguments.source, arguments.target, plan, shard_bytes=int(arguments.shard_gb * 1e9)
    )
    print(
        f"wrote {arguments.target}: {plan.child_layers} layers,"
        f" {record['parameters']:,} parameters, {record['bytes'] / 1e9:.3g} GB"
    )


def run_verify(arguments: argparse.Namespace) -> None:
    """Print the checks of a written child; UserError when one fails."""
    quiet()
    from katlab.layer_saturation import verify

    record = arguments.target / writer.PROVENANCE
    if not record.is_file():
        raise UserError(f"{record} does not exist; give a child by `katlab upscale apply`.")
    plan = layer_plan.LayerPlan.load(record)
    checks = {
        "layers": f"{plan.parent_layers} -> {plan.child_layers}",
        "tensors": verify.files(arguments.source, arguments.target, plan),
    }
    if arguments.text is not None:
        parent, tokenizer = _load(arguments.source, arguments)
        batches = _batches(tokenizer, arguments.text, arguments.tokens)
        expected = verify.Expected(parent, plan, batches)
        del parent  # the child may need its room
        checks |= expected.met_by(_load(arguments.target, arguments)[0])
    for name, value in checks.items():
        print(f"{name:<22} {value}")
