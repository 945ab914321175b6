"""`katlab export`: a run for a reviewer, its student for whoever serves it."""

import argparse
from pathlib import Path

from katlab.cli import given
from katlab.cli.parser import Commands, command


def register(commands: Commands) -> None:
    """Add `export`."""
    export = command(commands, "export", "one zip of a run: pages, data, the student", _export)
    export.add_argument("run", metavar="RUN")
    export.add_argument(
        "--out", type=Path, metavar="FILE.zip",
        help="where to (outputs/RUN.zip); without .zip a folder",
    )  # fmt: skip
    export.add_argument(
        "--model-only", action="store_true", help="just the student, as a Hugging Face folder"
    )


def _export(options: argparse.Namespace) -> None:
    from katlab.export import bundle

    run = given.run_folder(options.run)
    named = f"{run.name}-student.zip" if options.model_only else f"{run.name}.zip"
    print(bundle.write(run, options.out or run.with_name(named), options.model_only))
