"""The `katlab` command. Mistakes end with one sentence and status 2, failed stages with 1.

Usage:  katlab run --profile nano --run demo
"""

import argparse
import errno
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from katlab import UserError
from katlab.lab import parameters, profiles, quiet, records, runs, stages

REMEDIES = dict.fromkeys((errno.ENOSPC, errno.EDQUOT), "free some space and start again")
REMEDIES |= dict.fromkeys((errno.EACCES, errno.EPERM, errno.EROFS), "make it writable")
EPILOG = "Every command explains itself: katlab COMMAND --help."


def main(argv: Sequence[str] | None = None) -> int:
    """Entry point; returns the exit status."""
    given = list(sys.argv[1:] if argv is None else argv)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="replace")  # a terminal without ✓ must not stop a run
    quiet()
    try:
        options = _parser(given).parse_args(given)
        status = options.act(options) or 0
        sys.stdout.flush()
        return status
    except BrokenPipeError:  # `katlab plan | head` has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except UserError as mistake:
        print(mistake, file=sys.stderr)
        return 2
    except OSError as error:
        if error.errno not in REMEDIES:
            raise
        remedy = REMEDIES[error.errno]
        print(f"{error.strerror}: {error.filename or 'outputs/'}; {remedy}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        return 130


def _parser(argv: Sequence[str]) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("katlab", description=__doc__.split("\n")[0], epilog=EPILOG)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)

    run = _command(commands, "run", "run the stage notebooks in order", _run)
    _run_options(run)
    part = run.add_argument_group("which stages")
    part.add_argument("--from", dest="begin", default="", metavar="STAGE", help="from this on")
    part.add_argument("--only", action="append", default=[], metavar="STAGE", help="just this one")

    one = _command(commands, "stage", "run one stage", _stage)
    one.add_argument("stage", help="number, name or a unique beginning of it: 5, 05, step")
    _run_options(one)

    params = _command(commands, "params", "show the parameters and settings of a stage", _params)
    params.add_argument("stage")
    params.add_argument("--profile", default="nano")

    ls = _command(commands, "ls", "list runs and the state of their stages", _ls)
    ls.add_argument("run", nargs="?", default="", help="only this run")

    compare = _command(commands, "compare", "claims and figures of two or more runs", _compare)
    compare.add_argument("runs", nargs="+", metavar="RUN")

    report = _command(commands, "report", "render the pages of a run again", _report)
    report.add_argument("run", metavar="RUN")

    plan = _command(commands, "plan", "parameters, memory and compute of a profile", _plan)
    plan.add_argument("--profile", default="target-40b")

    _command(commands, "doctor", "what this machine has and lacks, and the remedy", _doctor)

    verify = _command(commands, "verify", "grade answers in a JSONL file", _verify)
    verify.add_argument("file", metavar="FILE.jsonl")
    verify.add_argument("--out", metavar="FILE.jsonl", help="write each verdict with its reason")

    check = _command(commands, "check", "read a query file and say what is in it", _check)
    check.add_argument("file", type=Path, metavar="FILE.jsonl")
    check.add_argument("--profile", default="nano", help="whose [rewards] name verifiers")

    if argv[:1] == ["upscale"]:  # brings its own options, and imports what they need
        from katlab.layer_saturation.command import register

        register(commands)
        commands.choices["upscale"].set_defaults(act=lambda options: options.run(options))
    else:
        commands.add_parser("upscale", help="plan, write and verify a deeper model")

    nano = _command(commands, "nano", "the nano world's own models", _nano)
    nano.add_argument("what", choices=["build"], help="train data_samples/nano again")
    nano.add_argument("--steps", type=int, help="fewer steps for each model, to try it")
    nano.add_argument("--out", type=Path, help="another folder than data_samples/nano")
    return parser


def _command(commands, name: str, text: str, act) -> argparse.ArgumentParser:
    command = commands.add_parser(name, help=text, description=f"{text[0].upper()}{text[1:]}.")
    command.set_defaults(act=act)
    return command


def _run_options(command: argparse.ArgumentParser) -> None:
    what = command.add_argument_group("what to run")
    what.add_argument("--profile", default=None, help="nano (default), or another profile or TOML")
    what.add_argument("--run", default=None, help="folder under outputs/ (default: demo)")
    what.add_argument("--seed", type=int, default=None, help="default: 0")
    what.add_argument(
        "-p", dest="parameters", action="append", default=[], metavar="NAME=VALUE",
        help="any other parameter of the notebooks",
    )  # fmt: skip
    what.add_argument(
        "-o", dest="overrides", action="append", default=[], metavar="SECTION.KEY=VALUE",
        help="a value of the profile, as in step_srpo.steps=50",
    )  # fmt: skip
    what.add_argument("--force", action="store_true", help="run even if nothing has changed")


def _values(options: argparse.Namespace, chosen: Sequence[stages.Stage]) -> dict[str, object]:
    """Notebook parameters from the command line, typed by the notebooks and by the profile."""
    known: dict[str, parameters.Parameter] = {}
    for stage in chosen:
        known |= parameters.declared(stages.notebook(stage.name))
    named = {"profile": options.profile, "run": options.run, "seed": options.seed}
    values = {key: value for key, value in named.items() if value is not None}
    for name, text in map(parameters.split, options.parameters):
        default = known[name].default if name in known else ""
        values[name] = parameters.literal(text, default)
    if str(values.get("profile", "")).endswith(".toml"):  # kernels start in notebooks/
        values["profile"] = str(Path(values["profile"]).resolve())
    if options.overrides:
        table = profiles.table(values.get("profile", known["profile"].default))
        pairs = map(parameters.split, options.overrides)
        values["overrides"] = {
            name: parameters.literal(text, _lookup(table, name)) for name, text in pairs
        }
    return values


def _lookup(table: dict, dotted: str) -> object:
    for key in dotted.split("."):
        table = table.get(key, {}) if isinstance(table, dict) else {}
    return table


def _run(options: argparse.Namespace) -> int:
    from katlab.lab import pipeline

    return _execute(options, pipeline.select(options.begin, options.only))


def _stage(options: argparse.Namespace) -> int:
    return _execute(options, [stages.find(options.stage)])


def _execute(options: argparse.Namespace, chosen: Sequence[stages.Stage]) -> int:
    from katlab.lab import engine, pipeline

    try:
        pipeline.run(chosen, _values(options, chosen), options.force)
    except engine.Failed:
        return 1
    except engine.Interrupted:
        return 130
    return 0


def _params(options: argparse.Namespace) -> None:
    stage = stages.find(options.stage)
    table = profiles.table(options.profile)  # its mistakes show before anything else
    print(f"{stage.name}: parameters (-p name=value)")
    for p in parameters.declared(stages.notebook(stage.name)).values():
        print(f"  {p.name:12} {p.default!r:12} {p.help}")
    section = profiles.section(stage.name)
    settings = table.get(section, {})
    if settings:
        print(f"settings of profile {options.profile} (-o {section}.name=value)")
    for key, value in profiles.flat(settings).items():
        print(f"  {key:32} {value!r}")


def _ls(options: argparse.Namespace) -> None:
    from katlab.lab.progress import seconds

    folder = stages.outputs()
    chosen = [_run_folder(options.run)] if options.run else sorted(
        {path.parents[1] for path in folder.glob("*/*/run.json")}
    )  # fmt: skip
    if not chosen:
        print("No runs yet; make the first with: katlab run")
    for run in chosen:
        folders = runs.stage_folders(run)  # a mistake in the name shows before anything else
        print(run.name)
        for stage in folders:
            record = runs.read(stage)
            spent = seconds(record["seconds"]) if "seconds" in record else ""
            print(
                f"  {stage.name:22} {runs.state(record):12} {spent:>12}  {record['started'][:16]}"
            )


def _run_folder(run: str) -> Path:
    records.check_name(run)
    return stages.outputs() / run


def _compare(options: argparse.Namespace) -> None:
    from katlab.lab import compare

    print(compare.side_by_side(stages.outputs(), [_run_folder(run).name for run in options.runs]))


def _report(options: argparse.Namespace) -> None:
    from katlab.lab import report

    run = _run_folder(options.run)
    for folder in report.stage_folders(run):
        if (folder / "notebook.ipynb").is_file():
            report.stage(folder)
    print(report.index(run))


def _plan(options: argparse.Namespace) -> None:
    from katlab.scaling_plan import planner

    print(planner.table(options.profile))


def _doctor(options: argparse.Namespace) -> int:
    from katlab import doctor

    return doctor.main()


def _verify(options: argparse.Namespace) -> int:
    from katlab.rewards.cli import verify_file

    return verify_file(options.file, options.out)


def _check(options: argparse.Namespace) -> int:
    from katlab.tasks import files

    return files.check(options.file, profiles.table(options.profile).get("rewards", {}))


def _nano(options: argparse.Namespace) -> None:
    from katlab.tasks.nano import build

    print(build.main(options.steps, options.out))


if __name__ == "__main__":
    sys.exit(main())
