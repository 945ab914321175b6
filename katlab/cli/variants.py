"""`katlab fork`, `katlab sweep` and `katlab ablate`: a variant of a run, and many of them."""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from katlab import UserError
from katlab.cli import given
from katlab.cli.parser import Commands, command
from katlab.lab import identity, parameters, profiles, records, stages
from katlab.lab.console import table
from katlab.lab.progress import number

if TYPE_CHECKING:
    from katlab.lab.variants import Fork

# What a sweep's table shows of the last of these stages that was run; else its last figures.
FIGURES = {
    "evaluation": {
        "final_auto_accuracy": "accuracy",
        "final_auto_tokens": "tokens",
        "final_think_on": "think-on",
    },
    "step_srpo": {
        "accuracy": "accuracy",
        "tokens_saved": "tokens saved",
        "think_on_rate": "think-on",
    },
}
MOST = 3  # figures of any other stage


def register(commands: Commands) -> None:
    """Add `fork`, `sweep` and `ablate`."""
    fork = command(
        commands, "fork", "a variant of a run that takes over what stays the same", _fork,
        "katlab fork demo idea -o step_srpo.omega=0.3", "katlab fork demo demo-seed1 --seed 1",
    )  # fmt: skip
    fork.add_argument("source", metavar="RUN", help="the run to vary")
    fork.add_argument("new", metavar="NEW", help="name of the variant")
    fork.add_argument("--seed", type=int, default=None, help="another seed")
    _override(fork, "SECTION.KEY=VALUE", "another value of the profile, as in step_srpo.omega=0.3")

    sweep = command(
        commands, "sweep", "variants of a run for several values and seeds", _sweep,
        "katlab sweep demo -o step_srpo.omega=0.2,0.35,0.5 --seeds 0,1,2 --to 06",
        more="The same command goes on where it stopped.",
    )  # fmt: skip
    sweep.add_argument("source", metavar="RUN", help="the run to vary")
    _override(sweep, "SECTION.KEY=A,B,C", "values of the profile, as step_srpo.omega=0.2,0.35,0.5")
    sweep.add_argument("--seeds", default="", metavar="0,1,2", help="seeds of every combination")
    sweep.add_argument("--to", dest="end", default="", metavar="STAGE", help="run up to this one")

    ablate = command(
        commands, "ablate", "what each choice of the method is worth: a list of forks", _ablate,
        "katlab ablate demo", "katlab ablate seed-0 seed-1 --row 'plain GRPO'",
        more="Forks finished runs by the rows of katlab/review/ablations.toml up to stage 06. "
        "Several runs differ in their seed alone and are pooled. The same command goes on where "
        "it stopped.",
    )  # fmt: skip
    ablate.add_argument("runs", nargs="+", metavar="RUN", help="finished runs, a seed each")
    ablate.add_argument(
        "--row", dest="rows", action="append", default=[], metavar="NAME", help="this row alone"
    )
    ablate.add_argument("--list", type=Path, metavar="FILE", help="another list of rows")


def _override(one: argparse.ArgumentParser, what: str, text: str) -> None:
    one.add_argument("-o", dest="overrides", action="append", default=[], metavar=what, help=text)


def _table(source: str) -> dict:
    """The profile's table of a run that is there."""
    folder = given.run_folder(source)
    kept = identity.read(folder)
    if kept is None:
        records.stage_folders(folder)
    return profiles.table((kept or identity.Identity()).profile)


def _fork(options: argparse.Namespace) -> None:
    from katlab.lab import variants

    overrides = given.typed(options.overrides, _table(options.source))
    parts = variants.fork(options.source, options.new, overrides, options.seed)
    width = max(len(part.stage) for part in parts)
    for part in parts:
        print(f"{'=' if part.taken else '▸'} {part.stage:{width}}  {part.why}")
    print(f"\nrun the rest with: katlab run --run {options.new}")


def _sweep(options: argparse.Namespace) -> int:
    from katlab import preflight
    from katlab.lab import pipeline, variants

    plain = _table(options.source)
    pairs = [parameters.split(text) for text in options.overrides]
    swept = {name: variants.parse(text, given.lookup(plain, name)) for name, text in pairs}
    seeds = [_seed(text) for text in options.seeds.split(",")] if options.seeds else []
    if not swept and not seeds:
        raise UserError("Name what is to vary, as -o step_srpo.omega=0.2,0.35 or --seeds 0,1,2")
    chosen = pipeline.select(end=options.end)
    forks = variants.combinations(options.source, swept, seeds)
    for fork in forks:
        named = {"run": fork.run, **fork.identity.values()}
        preflight.before(chosen, pipeline.arguments(chosen, named))
    failed = _run([(options.source, fork) for fork in forks], chosen)
    if failed is None:
        return 130
    print(_results(forks, list(swept), [stage.name for stage in chosen]))
    return _end(failed)


def _ablate(options: argparse.Namespace) -> int:
    from katlab import preflight
    from katlab.compare_runs.variants import SAMPLED
    from katlab.lab import pipeline
    from katlab.review import ablations

    begun = time.monotonic()
    runs = ablations.check([given.run_folder(run).name for run in options.runs])
    rows = ablations.plan(runs, options.rows, options.list or ablations.LIST)
    forks = [pair for row in rows for pair in zip(runs, row.forks, strict=True) if pair[1].told]
    chosen = pipeline.select(end=SAMPLED[:2])
    for _, fork in forks:
        named = {"run": fork.run, **fork.identity.values()}
        preflight.before(chosen, pipeline.arguments(chosen, named))
    failed = _run(forks, chosen)
    if failed is None:
        return 130
    print(f"{table(ablations.HEAD, ablations.table(runs, rows))}\n{ablations.TOLD}")
    now, whole = (time.monotonic() - begun) / 60, ablations.minutes(rows)
    made = f"{len(forks)} fork{'s' * (len(forks) != 1)}"
    print(f"{made}, {whole:.1f} minutes of work; this call took {now:.1f} minutes.")
    return _end(failed)


def _run(forks: Sequence[tuple[str, Fork]], chosen: Sequence[stages.Stage]) -> list[str] | None:
    """Make and run each fork of its source; those that failed, or None where it was stopped."""
    from katlab.lab import engine, pipeline, variants

    failed = []
    for place, (source, fork) in enumerate(forks, start=1):
        print(f"{place} of {len(forks)}: {fork.told or 'as it is'}")
        variants.fork(source, fork.run, fork.identity.overrides, fork.identity.seed)
        try:
            pipeline.run(chosen, {"run": fork.run})
        except engine.Failed:
            failed.append(fork.run)
        except engine.Interrupted:
            print(f"stopped at {fork.run}; the same command goes on there")
            return None
        print()
    return failed


def _end(failed: Sequence[str]) -> int:
    if failed:
        print(f"failed: {', '.join(failed)}; the same command tries them again")
    return 1 if failed else 0


def _seed(text: str) -> int:
    if not text.strip().isdecimal():
        raise UserError(f"--seeds takes whole numbers, as 0,1,2; not '{text}'.")
    return int(text)


def _results(forks: Sequence, swept: Sequence[str], chosen: Sequence[str]) -> str:
    """One row a run: what was swept, its seed, its main figures."""
    run = {fork.run: stages.outputs() / fork.run for fork in forks}
    shown = next((name for name in reversed(chosen) if profiles.section(name) in FIGURES), "")
    shown = shown or next(n for n in reversed(chosen) if not stages.named(n).always)
    found: dict[str, dict] = {}
    for name, folder in run.items():
        done = (folder / shown / "run.json").is_file()
        found[name] = records.read(folder / shown) if done else {"headline": {}, "state": "not run"}
    numbers = [
        key
        for key, value in found[forks[0].run]["headline"].items()
        if isinstance(value, float | int)
    ]
    figures = FIGURES.get(profiles.section(shown), {key: key for key in numbers[-MOST:]})
    rows = []
    for fork in forks:
        values = profiles.flat(profiles.table(fork.identity.profile, fork.identity.overrides))
        headline, state = found[fork.run]["headline"], records.state(found[fork.run])
        told = [number(headline[key]) if key in headline else "–" for key in figures]
        rows.append(
            [fork.run, *(number(values[key]) for key in swept), str(fork.identity.seed), *told]
            + [state if state != "done" else ""]
        )
    short = [key.rpartition(".")[2] for key in swept]
    return table(("run", *short, "seed", *figures.values(), ""), rows)
