"""What a profile asks of a query file, checked before anything runs.

checks.too_small("proxy-1.5b", {"model.queries": "mine.jsonl"})   # one sentence per setting
checks.check("mine.jsonl", "proxy-1.5b")   # prints it, and the values that fit
"""

import math
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from katlab.lab import profiles, settings
from katlab.lab.stages import root
from katlab.tasks import files, mixture, procedural, queries
from katlab.tasks.nano import wording

LEAST = 30  # problems, without a split of their own; docs/own-data.md went through with as many
HELD_OUT = "mtp_distillation.held_out"  # of the corpus, which has at most as many rows as 02 asks


SPLITS = ("stage_1", "stage_2", "rl", "validation", "test")


class Shortage(NamedTuple):
    """A setting that asks for more rows than are there, and the most that it could ask for."""

    setting: str
    asked: Any
    there: int
    fits: int


def too_small(
    profile: str, overrides: dict | None = None, sections: Collection[str] = ()
) -> list[str]:
    """What keeps the profile's query file from serving the profile, in one sentence each.

    Every count of queries that is too high, and queries that nano's models cannot read. `sections`
    names the stages that run, as in a profile; none names all. Raises UserError for a mistake in
    the profile, a missing file, or the first line that is no query.
    """
    config = profiles.load(profile, overrides)
    if config.model.queries == "nano":
        return _shares_of_the_endless(config, queries.room(config), sections)
    if mixture.sources(config.model.queries):
        rows, asked = queries.room(config), _of_a_sum(config)
        said = [unread(config, asked), *_shares_of_the_endless(config, rows, sections)]
    else:
        dealt = queries.of(config)
        rows = {split: len(part) for split, part in dealt.items()}
        said = [unread(config, [row for part in dealt.values() for row in part])]
    for lack in shortages(config, rows, sections):
        remedy = f"set {lack.setting}={lack.fits}" if lack.fits else "give more rows"
        has = f"{config.model.queries} has {lack.there} for it"
        if lack.setting == HELD_OUT:
            has = f"its corpus has at most {lack.there}"
        said.append(f"{lack.setting} asks for {lack.asked} rows and {has}; {remedy}.")
    return [sentence for sentence in said if sentence]


def shortages(config, rows: dict[str, int], sections: Collection[str] = ()) -> list[Shortage]:
    """Every count of the profile that so many rows of its split cannot fill."""
    found = []
    for split, setting, asked in counts(config, sections):
        there = rows[split]
        if not there or settings.count(asked, there) > there:
            found.append(Shortage(setting, asked, there, there))
    first = queries.COUNTS["stage_1"][0]
    most = min(rows["stage_1"], settings.count(_value(config, first), rows["stage_1"]))
    if _runs(HELD_OUT, sections) and 2 * settings.count(_value(config, HELD_OUT), most) > most:
        found.append(Shortage(HELD_OUT, _value(config, HELD_OUT), most, most and max(1, most // 8)))
    return found


def counts(config, sections: Collection[str] = ()) -> Iterator[tuple[str, str, Any]]:
    """(split, setting, value) of all that is taken from the query file."""
    for split, names in queries.COUNTS.items():
        for name in names:
            if _runs(name, sections):
                yield split, name, _value(config, name)


def needed(config) -> int:
    """How many problems without a split of their own fill the profile's counts as they are."""
    eighths = [
        math.ceil(8 * asked / (queries.SHARES | queries.OF_EVAL)[split])
        for split, _, asked in counts(config)
        if isinstance(asked, int)
    ]
    return max([LEAST, *eighths])


def check(path: str | Path, profile: str = "", overrides: dict | None = None) -> int:
    """Print what a query file or a sum of sources holds, and what a profile lacks in it.

    Returns 1 where a line is no query or the profile asks for more than there is, else 0. Raises
    UserError when the file is missing, is no JSONL, or holds no row.
    """
    if mixture.sources(str(path)):
        return _check_sum(str(path), profile, overrides or {})
    file = Path(path).resolve()
    if file.is_relative_to(root()):  # from where a profile counts
        file = file.relative_to(root())
    overrides = (overrides or {}) | {"model.queries": str(file)}
    config = profiles.load(profile or profiles.SCHEMA, overrides)
    if status := files.check(path, getattr(config.rewards, "model_extra", {})):
        return status
    rows = queries.of(config)
    if (problems := len({files.problem(row) for part in rows.values() for row in part})) < LEAST:
        print(f"Problems: {problems}; {LEAST} are the least that went through every stage.")
    if not profile:
        print("Add --profile P to see whether they are enough for the counts of a profile.")
        return 0
    there = {split: len(part) for split, part in rows.items()}
    needs = f"As it is, {profile} takes {needed(config):,} rows"
    status = _fitting(profile, overrides, there, "file", needs)
    if hint := _one_sided(config, rows["stage_1"]):
        print(f"\n{hint}")
    return status


def _check_sum(text: str, profile: str, overrides: dict) -> int:
    """As `check`, of the sources of a sum."""
    from katlab.lab.console import table

    overrides = overrides | {"model.queries": text}
    config = profiles.load(profile or profiles.SCHEMA, overrides)
    found, rooms = queries.pools(config), queries.room(config)
    shown = []
    for source in mixture.sources(text):
        by_split = {split: dict(found[split]) for split in SPLITS}
        counts = [
            "any" if pools.get(source, 0) is None else str(len(pools.get(source, ())))
            for pools in by_split.values()
        ]
        shown.append((str(source), f"{source.share:.2f}", *counts))
    in_all = ("any" if rooms[split] >= mixture.ENDLESS else str(rooms[split]) for split in SPLITS)
    shown.append(("by these shares", "", *in_all))
    print(table(["source", "share", *SPLITS], shown))
    if not profile:
        print("Add --profile P to see whether they are enough for the counts of a profile.")
        return 0
    needs = f"As it is, {profile} takes more than there is"
    return _fitting(profile, overrides, rooms, "sum", needs)


def _fitting(profile: str, overrides: dict, rows: dict[str, int], what: str, needs: str) -> int:
    """Print what is too small, and the command with the counts that fit; 1 where anything is."""
    config, told = profiles.load(profile, overrides), too_small(profile, overrides)
    fits = {lack.setting: lack.fits for lack in shortages(config, rows)}
    for sentence in told:
        print(sentence)
    given = overrides | fits
    if profiles.load(profile).model.queries == given["model.queries"]:  # as it says already
        del given["model.queries"]
    if not all(fits.values()):
        print(f"\n{needs}, and no setting fits so few.")
    elif fits:
        print(f"\n{needs}. What fits this {what}:\n")
    elif not told:
        print(f"The {what} fills every count of profile {profile}:\n")
    if all(fits.values()) and (fits or not told):
        command = f"katlab run --run mine --profile {profile}"
        options = (profiles.options({name: value}) for name, value in given.items())
        print(" \\\n  ".join([command, *options]))
    return 1 if told else 0


def _one_sided(config, rows: list[dict]) -> str:
    """Where no query is labelled hard, or none easy, stage 02 has a regime without queries."""
    level = config.dual_regime_data.think_on_level
    hard = sum(row["difficulty"] >= level for row in rows)
    if not rows or 0 < hard < len(rows):
        return ""
    which = "all of" if hard else "none of"
    return (
        f"{which} stage 02's {len(rows)} queries have difficulty {level} or more, and it needs "
        "both kinds: set dual_regime_data.think_on_level to a difficulty in between."
    ).capitalize()


def unread(config, rows: list[dict]) -> str:
    """That nano's models can read none of these queries, where it is they who are asked, or ""."""
    if not rows or not _nanos(config.model.teacher_off) or any(map(wording.is_nanos, rows)):
        return ""
    english = [
        name for name in profiles.names() if not _nanos(profiles.load(name).model.teacher_off)
    ]
    example = str(rows[0]["messages"][-1]["content"])
    shown = example if len(example) <= 40 else f"{example[:37]}..."
    return (
        f"nano's models read the nano world's own wording only ('Compute 13+14.'), not '{shown}'; "
        f"for queries in English take a profile with real models, such as {' or '.join(english)}."
    )


def _nanos(model: str) -> bool:
    return "nano" in Path(model).parts


def _shares_of_the_endless(config, rows: dict[str, int], sections: Collection[str]) -> list[str]:
    who = {"nano": "the nano world"}.get(config.model.queries, config.model.queries)
    return [
        f"{name} = {asked} is a share, and {who} has no end of queries; give a number."
        for split, name, asked in counts(config, sections)
        if not isinstance(asked, int) and rows[split] >= mixture.ENDLESS
    ]


def _of_a_sum(config) -> list[dict]:
    """A row of each source."""
    found = {source: pool for pools in queries.pools(config).values() for source, pool in pools}
    return [pool[0] if pool else procedural.queries(1, 0, "test")[0] for pool in found.values()]


def _value(config, dotted: str) -> Any:
    section, name = dotted.split(".")
    return getattr(getattr(config, section), name)


def _runs(dotted: str, sections: Collection[str]) -> bool:
    return not sections or dotted.split(".")[0] in sections
