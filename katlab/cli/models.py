"""`katlab upscale` and `katlab nano`: models made from models."""

import argparse
from pathlib import Path

from katlab.cli.parser import Commands, Parser, command


def register(commands: Commands) -> None:
    """Add `upscale` and `nano`."""
    upscale = command(commands, "upscale", "plan, write and verify a deeper model", None)
    upscale.grow = _upscale

    nano = command(commands, "nano", "the nano world's own models", _nano)
    nano.add_argument("what", choices=["build"], help="train data_samples/nano again")
    nano.add_argument("--steps", type=int, help="fewer steps for each model, to try it")
    nano.add_argument("--out", type=Path, help="another folder than data_samples/nano")


def _upscale(upscale: Parser) -> None:
    from katlab.layer_saturation.command import register

    register(upscale)


def _nano(options: argparse.Namespace) -> None:
    from katlab.tasks.nano import build

    print(build.main(options.steps, options.out))
