"""`katlab export`: a run for a reviewer, its student for whoever serves it."""

import argparse
from pathlib import Path

from katlab.cli import given
from katlab.cli.parser import Commands, command


def register(commands: Commands) -> None:
    """Add `export`."""
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


def _export(options: argparse.Namespace) -> None:
    from katlab.export import bundle

    run = given.run_folder(options.run)
    named = f"{run.name}-student.zip" if options.model_only else f"{run.name}.zip"
    print(bundle.write(run, options.out or run.with_name(named), options.model_only))
