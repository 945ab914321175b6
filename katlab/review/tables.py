"""A review's summary in words: the tables that it prints, for the README and for its own pages.

Every cell comes from summary.json, so that a table on a page can be held against it.

    print(tables.text(json.loads((folder / "summary.json").read_text())))
"""

import re
from collections.abc import Iterable, Sequence

ROWS = (  # of the short table; a review that lacks one has fewer
    "base",
    "cold start (own votes)",
    "final (own votes)",
    "cold start (teachers' votes)",
    "final (teachers' votes)",
    "GRPO",
    "always-on",
    "one-feature rule",
)
APART = (  # of the table of each set
    "base",
    "teacher that thinks",
    "teacher that does not",
    *ROWS[1:7],
    "always-off",
)
HEAD = ("system", "accuracy", "tokens", "thinks, easiest → hardest", "judge agrees", "AUC_OAA")
MISSED = ("stage", "claim", "measured, seed by seed", "held in", "")
ASIDE = re.compile(r"\s*(?:\[[^]]*\]|\([^)]*\)|;.*)")  # intervals, remarks
NOT_HELD = {False: "✗", None: "not judged"}


def text(summary: dict) -> str:
    """What a review comes to, as Markdown: systems, and below them every claim that is not held."""
    missed = [claim for claim in summary["claims"] if not claim["held"]]
    count = len(summary["claims"])
    lines = [
        f"{_seeds(summary)}, {summary['n']:,} prompts in all, commit {summary['commit'][:8]}; "
        "[ ] is a 95 % interval over seeds and problems.",
        "",
        *markdown(HEAD, systems(summary, ROWS)),
        "",
        *([*markdown(*sets(summary, APART)), ""] if summary.get("sets") else []),
        f"{against(summary)} {count - len(missed)} of {count} claims are held by the verdict of "
        f"every seed{'; the others:' if missed else '.'}",
    ]
    if missed:
        lines += ["", *markdown(MISSED, map(_missed, missed))]
    return "\n".join(lines)


def systems(summary: dict, names: Sequence[str] = ()) -> list[list[str]]:
    """The systems of a summary, or those named that it has, in the order of `HEAD`."""
    found = summary["systems"]
    return [_system(name, found[name]) for name in names or found if name in found]


def sets(summary: dict, names: Sequence[str] = ()) -> tuple[list[str], list[list[str]]]:
    """Head and rows of each set apart: all systems, or those named; accuracy, tokens, thinks."""
    made = summary["sets"]
    told = [name for name in names or summary["systems"] if name in summary["systems"]]
    rows = [[name, *(_apart(one["systems"][name]) for one in made.values())] for name in told]
    return ["system", *(f"{of}, {one['n']}" for of, one in made.items())], rows


def claims(summary: dict) -> list[list[str]]:
    """Every claim: stage, words, ✓ ✗ or not judged, what was measured."""
    return [
        [one["stage"][:2], one["claim"], NOT_HELD.get(one["held"], "✓"), one["measured"]]
        for one in summary["claims"]
    ]


def against(summary: dict) -> str:
    """The final model against always thinking, in one sentence."""
    found = summary["against_always_on"]
    gained, low = (100 * value for value in found["accuracy_difference"])
    saved = _percent(found["tokens_saved"])
    return (
        f"Against always thinking: {gained:+.1f} points of accuracy, at least {low:+.1f} "
        f"(one-sided, 95 %; the bound lies within {100 * found['margin']:.0f} points in "
        f"{100 * found['power']:.0f} % of cases if there is no difference), "
        f"and {saved} of the tokens saved."
    )


def markdown(head: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """A table, one line a row."""
    lines = [head, ["---"] * len(head), *rows]
    return ["| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |" for row in lines]


def _system(name: str, row: dict) -> list[str]:
    rates = list(row["think_on"].values())
    named, area = row["judge_agreement"], row["auc_oaa"]
    return [
        name,
        "–" if row["accuracy"] is None else _percent(row["accuracy"]),
        "–" if row["tokens"] is None else "{:.1f} [{:.1f}, {:.1f}]".format(*row["tokens"]),
        f"{100 * rates[0]:.0f} → {100 * rates[-1]:.0f} %",
        "–" if named is None else f"{100 * named:.0f} %",
        "–" if area is None else f"{area:.3f}",
    ]


def _apart(row: dict) -> str:
    if row["accuracy"] is None:
        return "–"
    return (
        f"{_percent(row['accuracy'])}; {row['tokens'][0]:.0f} tokens; "
        f"thinks {100 * row['thinks'][0]:.0f} %"
    )


def _missed(claim: dict) -> list[str]:
    seeds = claim["held_in"]
    held = f"seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}" if seeds else "no seed"
    measured = " / ".join(ASIDE.sub("", text) for text in claim["by_seed"].values())
    return [claim["stage"][:2], claim["claim"], measured, held, NOT_HELD[claim["held"]]]


def _percent(interval: Sequence[float]) -> str:
    return "{:.1f} % [{:.1f}, {:.1f}]".format(*(100 * value for value in interval))


def _seeds(summary: dict) -> str:
    seeds = summary["seeds"]
    return f"Seed{'s' * (len(seeds) > 1)} {', '.join(map(str, seeds))}"
