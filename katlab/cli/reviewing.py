"""`katlab review`: what runs of several seeds show, as a folder to commit."""

import argparse
import json
from pathlib import Path

from katlab.cli import given
from katlab.cli.parser import Commands, command
from katlab.lab import stages


def register(commands: Commands) -> None:
    """Add `review`."""
    review = command(
        commands, "review", "one summary of finished runs, a seed each, with their pages", _review,
        "katlab review seed-0 seed-1 seed-2 --ablations --out outputs/reviews/nano",
        "katlab review demo --control demo-advantages-grpo --tuned",
        more="Writes summary.json, figures pooled over the seeds, copies pages and figures, and "
        "prints the table of the README.",
    )  # fmt: skip
    review.add_argument("runs", nargs="+", metavar="RUN", help="names of runs; see katlab ls")
    review.add_argument(
        "--out", type=Path, metavar="FOLDER", help="default: outputs/reviews/PROFILE"
    )
    review.add_argument(
        "--control", action="append", default=[], metavar="RUN",
        help="a run of one of these seeds under other settings, for rows of its own",
    )  # fmt: skip
    review.add_argument(
        "--ablations", action="store_true", help="as controls, what katlab ablate made of the runs"
    )
    review.add_argument(
        "--tuned", action="store_true", help="let seeds pass that settings were chosen on; says so"
    )


def _review(options: argparse.Namespace) -> None:
    outputs = stages.outputs()
    names = [given.run_folder(run).name for run in options.runs]
    controls = [given.run_folder(run).name for run in options.control]

    from katlab.review import ablations, accepted, pages, tables

    if options.ablations:
        controls += [name for name in ablations.controls(names) if name not in controls]
    chosen = accepted.runs(outputs, names, controls, options.tuned)
    out = pages.write(chosen, options.out or outputs / "reviews" / Path(chosen.profile).stem)
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    print(f"{tables.text(summary)}\n\n{out / 'index.html'}")
