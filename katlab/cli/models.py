"""`katlab upscale` and `katlab nano`: models made from models."""

import argparse
from pathlib import Path

from katlab.cli.parser import Commands, Parser, command


def register(commands: Commands) -> None:
    """Add `upscale` and `nano`."""
    upscale = command(
        commands, "upscale", "plan, write and verify a deeper model", None,
        "katlab upscale plan Qwen2.5-32B --layers 40-55 --out plan.json",
        "katlab upscale apply Qwen2.5-32B KAT-40B --plan plan.json",
        "katlab upscale verify Qwen2.5-32B KAT-40B --text held_out.txt",
    )  # fmt: skip
    upscale.grow = _upscale

    nano = command(
        commands, "nano", "the nano world's own models", _nano,
        "katlab nano build --steps 20 --out build/nano",
    )  # fmt: skip
    nano.add_argument("what", choices=["build"], help="train the models again")
    nano.add_argument(
        "--steps",
        type=int,
        help="fewer for each model, to try it (default: as for the shipped ones)",
    )
    nano.add_argument("--out", type=Path, help="folder to write (default: data_samples/nano)")


def _upscale(upscale: Parser) -> None:
    from katlab.layer_saturation.command import register

    register(upscale)


def _nano(options: argparse.Namespace) -> None:
    from katlab.tasks.nano import build

    print(build.main(options.steps, options.out))
