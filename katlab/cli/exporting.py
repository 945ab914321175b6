"""`katlab export`: a run for a reviewer, its student for whoever serves it.

`katlab pack` and `katlab unpack`: a run that goes on on another machine.
"""

import argparse
from pathlib import Path

from katlab.cli import given
from katlab.cli.parser import Commands, command
from katlab.lab import stages


def register(commands: Commands) -> None:
    """Add `export`, `pack` and `unpack`."""
    export = command(
        commands, "export", "one zip of a run: pages, data, the student", _export,
        "katlab export demo",
        "katlab export demo --model-only --out demo-student",
        more="The student is a Hugging Face folder with a model card.",
    )  # fmt: skip
    export.add_argument("run", metavar="RUN", help="name of a run; see katlab ls")
    export.add_argument(
        "--out", type=Path, metavar="FILE.zip",
        help="a zip, or a folder where it does not end in .zip (default: outputs/RUN.zip)",
    )  # fmt: skip
    export.add_argument(
        "--model-only", action="store_true", help="the student alone (default: pages as well)"
    )
    pack = command(
        commands, "pack", "one small file of a run, to go on elsewhere", _pack,
        "katlab pack mine --stage 04", "katlab pack mine --stage 04 --out mine.zip",
        more="Students travel as LoRA adapters, so [lora] must be enabled.",
    )  # fmt: skip
    pack.add_argument("run", metavar="RUN", help="name of a run; see katlab ls")
    pack.add_argument(
        "--stage", required=True, metavar="STAGE", help="the last one that is packed: 4, 04, cold"
    )
    pack.add_argument("--out", type=Path, metavar="FILE.zip", help="default: outputs/RUN-STAGE.zip")
    unpack = command(
        commands, "unpack", "put a packed run down and rebuild its students", _unpack,
        "katlab unpack mine-04.zip",
        more="The profile's model.student must be at hand: the students are rebuilt from it.",
    )  # fmt: skip
    unpack.add_argument("file", type=Path, metavar="FILE.zip", help="what katlab pack wrote")


def _pack(options: argparse.Namespace) -> None:
    from katlab.export import travel

    run, last = given.run_folder(options.run), stages.find(options.stage).name
    out = travel.pack(run, last, options.out or run.with_name(f"{run.name}-{last[:2]}.zip"))
    print(f"{out}  {out.stat().st_size / 2**20:.1f} MiB")


def _unpack(options: argparse.Namespace) -> None:
    from katlab.export import travel

    run, differ = travel.unpack(options.file, stages.outputs())
    for name in differ:
        print(f"{name}: rebuilt within rounding; another machine packed it")
    print(f"{run}\nGo on with: katlab run --run {run.name}")


def _export(options: argparse.Namespace) -> None:
    from katlab.export import bundle

    run = given.run_folder(options.run)
    named = f"{run.name}-student.zip" if options.model_only else f"{run.name}.zip"
    print(bundle.write(run, options.out or run.with_name(named), options.model_only))
