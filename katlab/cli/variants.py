"""`katlab fork` and `katlab sweep`: variants of a run, and many of them."""

import argparse
from collections.abc import Sequence

from katlab import UserError
from katlab.cli import given
from katlab.cli.parser import Commands, command
from katlab.lab import identity, parameters, profiles, records, stages
from katlab.lab.console import table
from katlab.lab.progress import number

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
    """Add `fork` and `sweep`."""
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
    from katlab.lab import engine, pipeline, variants

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
    failed = []
    for place, fork in enumerate(forks, start=1):
        print(f"{place} of {len(forks)}: {fork.told or 'as it is'}")
        variants.fork(options.source, fork.run, fork.identity.overrides, fork.identity.seed)
        try:
            pipeline.run(chosen, {"run": fork.run})
        except engine.Failed:
            failed.append(fork.run)
        except engine.Interrupted:
            print(f"stopped at {fork.run}; the same command goes on there")
            return 130
        print()
    print(_results(forks, list(swept), [stage.name for stage in chosen]))
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
