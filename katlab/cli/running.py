"""`katlab run` and `katlab stage`: the notebooks in order, or one of them."""

import argparse
from collections.abc import Sequence

from katlab.cli import given, listing
from katlab.cli.parser import Commands, command
from katlab.lab import stages
from katlab.lab.console import plural, table
from katlab.lab.progress import seconds

STAGE = "number, name or the beginning of one: 5, 05, step"


def register(commands: Commands) -> None:
    """Add `run` and `stage`."""
    run = command(
        commands, "run", "run the stage notebooks in order", _run,
        "katlab run                                   # the demo, all stages",
        "katlab run --run idea -o step_srpo.omega=0.3 --dry-run",
        "katlab run --run idea --from 05 --to 06",
        "katlab run --run quick --profile tiny --only 01 --only 08",
        more="What is done already is reused, also from other runs; what was cut off goes on; "
        "nothing finished is deleted.",
    )  # fmt: skip
    given.options(run)
    part = run.add_argument_group("which stages", STAGE)
    part.add_argument("--from", dest="begin", default="", metavar="STAGE", help="from this on")
    part.add_argument("--to", dest="end", default="", metavar="STAGE", help="up to this one")
    part.add_argument(
        "--only", action="append", default=[], metavar="STAGE",
        help="just this one; may be repeated (default: all)",
    )  # fmt: skip
    _how(run)

    one = command(
        commands, "stage", "run one stage", _stage,
        "katlab stage 08", "katlab stage 05 --run idea --force",
    )  # fmt: skip
    one.add_argument("stage", metavar="STAGE", help=STAGE)
    given.options(one)
    _how(one)


def _how(made: argparse.ArgumentParser) -> None:
    how = made.add_argument_group("how")
    how.add_argument("--force", action="store_true", help="run even if nothing has changed")
    how.add_argument("--dry-run", action="store_true", help="say what would run, and run nothing")
    how.add_argument("-q", "--quiet", action="store_true", help="print errors and the last path")
    given.as_json(how)


def _run(options: argparse.Namespace) -> int:
    from katlab.lab import pipeline

    return execute(options, pipeline.select(options.begin, options.end, options.only))


def _stage(options: argparse.Namespace) -> int:
    return execute(options, [stages.find(options.stage)])


def execute(options: argparse.Namespace, chosen: Sequence[stages.Stage]) -> int:
    """Run stages with what the command line gives; the exit status."""
    from katlab import preflight
    from katlab.lab import engine, pipeline

    values = given.values(options, chosen)
    filled = pipeline.arguments(chosen, values)
    if options.dry_run:
        _rehearse(options, chosen, filled)
    preflight.before(chosen, filled, options.force)
    if options.dry_run:
        return 0
    status = 0
    try:
        index = pipeline.run(chosen, values, options.force, options.quiet or options.json)
        if options.quiet and not options.json:
            print(index)
    except engine.Failed:
        status = 1
    except engine.Interrupted:
        status = 130
    if options.json:
        given.print_json(listing.described(given.run_folder(filled[chosen[0].name]["run"])))
    return status


def _rehearse(options: argparse.Namespace, chosen: Sequence[stages.Stage], filled: dict) -> None:
    """Print what a run would do."""
    from katlab.lab import pipeline, steps

    said = {
        steps.UNCHANGED: "nothing: it is done",
        steps.PAGE: "draws its page again over finished work",
        steps.CONTINUE: "goes on where it was cut off",
        steps.RUN: "runs",
    }
    profile = filled[chosen[0].name]["profile"]
    found = steps.rehearse(chosen, filled, options.force)
    times = [steps.expected_seconds(step, profile) for step in found]
    if options.json:
        given.print_json([
            {
                "stage": step.folder.name,
                "act": step.act,
                "from": step.hit and step.hit.parent.name,
                "set_aside": step.kept and step.kept.name,
                "seconds": time,
            }
            for step, time in zip(found, times, strict=True)
        ])  # fmt: skip
        return
    rows = []
    for step, time in zip(found, times, strict=True):
        hit = step.hit and pipeline.source(step.hit, step.folder)
        does = f"is taken from {hit}" if hit else said[step.act]
        if step.kept:
            does += f"; what stands there is kept as {step.kept.name}"
        rows.append(
            (step.folder.name, does, "?" if time is None else seconds(time) if time else "–")
        )
    run = filled[chosen[0].name]["run"]
    print(f"run {run}: what would happen; nothing has been started or written\n")
    print(table(("stage", "", "takes"), rows))
    doing = sum(time != 0 for time in times)
    if not doing:
        print("\nno stage's work is to be done")
        return
    told = f"\n{plural(doing, 'stage')} to run, about {seconds(sum(filter(None, times)))}"
    unknown = sum(time is None for time in times)
    told += f" and {plural(unknown, 'stage')} never timed on profile {profile}" * bool(unknown)
    print(told + f" (by the last times on profile {profile})" * (doing > unknown))
