"""`katlab review`: what is refused, figures by hand, what is copied."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import gates
import pytest
from conftest import CHECKOUT
from reviewed import COLD, FALLS, FINAL, STAGES, asked, kin, make

from katlab import UserError, cli
from katlab.lab import fingerprint, profiles, records, write_jsonl
from katlab.review import accepted, pages, summary, tables, twins
from katlab.tasks.nano import world

READ = {"05_step_srpo": "another attempt"}
REPORTED = 'extends = "nano"\n[seeds]\ntuning = [100]\nreported = [7, 8]\n'
SYSTEM = ("accuracy", "tokens", "think_on", "judge_agreement", "auc_oaa", "leakage")
AGAINST = {"accuracy_difference": 2, "tokens_saved": 3}
NAMED = (  # the systems that a review of runs with both votes and GRPO has at least
    *("base", "distilled", COLD, FINAL, "GRPO"),
    *(f"{name} (teachers' votes)" for name in ("cold start", "final")),
    *("always-on", "always-off", "coin", "threshold", "one-feature rule", "oracle"),
)


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    outputs = tmp_path_factory.mktemp("finished")
    profile = outputs / "mine.toml"
    profile.write_text(REPORTED)
    for seed, held in ((7, True), (8, False)):
        make(outputs, f"s{seed}", seed, held, profile=str(profile))
    return outputs


@pytest.fixture
def outputs(finished, tmp_path) -> Path:
    """The two runs again, to be changed."""
    return shutil.copytree(finished, tmp_path / "outputs")


def edit(path: Path, change) -> None:
    record = json.loads(path.read_text())
    change(record)
    path.write_text(json.dumps(record))


def in_all(run: Path, change) -> None:
    for path in run.glob("*/run.json"):
        edit(path, change)


# One row per reason: what is done to run s8, and what the one sentence says.
REFUSED = {
    "other settings": (
        lambda run: edit(run / STAGES[2] / "run.json", lambda r: r["settings"].update(omega=0.9)),
        "differ in step_srpo.omega; only runs that differ in their seed",
    ),
    "other profile": (
        lambda run: in_all(run, lambda r: r["parameters"].update(profile="tiny")),
        "differ in profile",
    ),
    "a seed twice": (
        lambda run: in_all(run, lambda r: r.update(seed=7)),
        "Seed 7 is there twice ('s7' and 's8')",
    ),
    "other commit": (
        lambda run: edit(run / STAGES[3] / "run.json", lambda r: r.update(git={"sha": "beef"})),
        "'s8' (beef) were made by different commits; run both from one.",
    ),
    "failed": (
        lambda run: edit(run / STAGES[2] / "run.json", lambda r: r.update(state="failed")),
        "'s8' is not finished (05 failed); run: katlab run --run s8",
    ),
    "not run": (
        lambda run: shutil.rmtree(run / STAGES[3]),
        "not finished (06 not run)",
    ),
    "stale": (
        lambda run: edit(run / STAGES[3] / "run.json", lambda r: r["upstream"].update(READ)),
        "06 stale, since 05 ran again",
    ),
    "without samples": (
        lambda run: (run / STAGES[3] / "arms.jsonl").unlink(),
        "06 without arms.jsonl",
    ),
    "without pages": (
        lambda run: (run / "index.html").unlink(),
        "'s8' has no pages yet; run: katlab report s8",
    ),
}  # fmt: skip


@pytest.mark.parametrize("reason", REFUSED)
def test_runs_that_do_not_belong_together_are_refused(outputs, reason):
    change, words = REFUSED[reason]
    change(outputs / "s8")
    with pytest.raises(UserError) as refused:
        accepted.runs(outputs, ["s7", "s8"])
    assert words in str(refused.value) and "\n" not in str(refused.value)


# What a profile says of its seeds, whether --tuned is given, and the sentence; None: it passes.
SEEDS = [
    ([100], [7, 8], False, None),
    ([100], [], False, None),
    ([8, 9], [], False, "was tuned on seed 8; report runs of other seeds, or give --tuned"),
    ([8, 7], [], False, "was tuned on seeds 7, 8; report"),
    ([8, 9], [], True, None),
    ([1], [7, 8, 9], False, "reports the seeds 7, 8, 9, and these runs have 7, 8; give one run of"),
    ([1], [7, 8, 9], True, "reports the seeds 7, 8, 9, and these runs have 7, 8; give one run of"),
    ([7], [7, 8], False, "share 7; report runs of seeds that no setting"),
]


@pytest.mark.parametrize(("tuning", "reported", "tuned", "words"), SEEDS)
def test_tuning_seeds_are_not_reported(outputs, tuning, reported, tuned, words):
    mine = outputs / "other.toml"
    mine.write_text(f'extends = "nano"\n[seeds]\ntuning = {tuning}\nreported = {reported}\n')
    for name in ("s7", "s8"):  # an override is no way around
        more = {"profile": str(mine), "overrides": {"seeds.tuning": []}}
        in_all(outputs / name, lambda r, more=more: r["parameters"].update(more))
    if words:
        with pytest.raises(UserError, match=words) as refused:
            accepted.runs(outputs, ["s7", "s8"], tuned=tuned)
        assert "\n" not in str(refused.value)
    else:
        chosen = accepted.runs(outputs, ["s8", "s7"], tuned=tuned)
        assert [run.seed for run in chosen.reported] == [7, 8] and chosen.tuned == tuned


def test_nano_tells_the_seeds_apart():
    seeds = profiles.load("nano").seeds
    assert seeds.tuning == [100, 101, 102] and seeds.reported == [0, 1, 2, 3, 4]


def test_no_work_depends_on_the_seeds_of_a_profile():
    told = {"profile": "nano", "seed": 0, "overrides": {}}
    other = told | {"overrides": {"seeds.tuning": [100], "seeds.reported": [0]}}
    made = [fingerprint.work("05_step_srpo", values, {}) for values in (told, other)]
    assert made[0] == made[1]


def test_figures_are_those_of_the_samples(finished):
    """The good gate is right everywhere, at 0.6 x 20 + 0.4 x 60 tokens; thinking costs 60."""
    made = summary.of(accepted.runs(finished, ["s7", "s8"]))
    assert made["profile"] == "mine.toml" and made["seeds"] == [7, 8]
    assert made["tuning_seeds"] == [100] and made["tuned_on_these"] is False
    assert made["n"] == 600 and made["n_by_seed"] == {"7": 300, "8": 300}
    final, on, off = (made["systems"][name] for name in (FINAL, "always-on", "always-off"))
    assert final["accuracy"][0] == 1 and 0.98 < final["accuracy"][1] < 1
    assert final["tokens"][0] == 36 and final["tokens"][1] < 36 < final["tokens"][2]
    assert final["think_on"] == {"1": 0, "2": 0, "3": 0, "4": 1, "5": 1}
    assert final["judge_agreement"] == 1 and final["leakage"] == 0
    assert final["auc_oaa"] == round(0.6 + 0.4 * 88 / 128, 4)
    assert on["tokens"] == [60, 60, 60] and on["judge_agreement"] is on["leakage"] is None
    assert off["accuracy"][0] == 0.6
    assert made["systems"]["coin"]["accuracy"][0] == round(0.6 + 0.4 * 0.4, 4)
    distilled = made["systems"]["distilled"]  # told to think and told not to
    assert distilled["accuracy"][0] == 0.8 and distilled["tokens"][0] == 40
    assert distilled["think_on"] == dict.fromkeys("12345", 0.5)
    against = made["against_always_on"]
    assert against["tokens_saved"][0] == 0.4 and against["tokens_saved"][1] < 0.4
    assert against["accuracy_difference"][0] == 0 and -0.01 < against["accuracy_difference"][1] < 0
    assert against["margin"] == 0.02 and against["power"] > 0.99  # n = 600, and nothing differs


def test_each_set_of_a_mixture_stands_apart(outputs):
    """Easy prompts are of one set and the others of another; the good gate knows them apart."""
    for name in ("s7", "s8"):
        path = outputs / name / STAGES[3] / "arms.jsonl"
        rows = [json.loads(line) for line in path.read_text().splitlines()]
        write_jsonl(path, [row | {"set": "ab"[row["difficulty"] > 3]} for row in rows])
    made = summary.of(accepted.runs(outputs, ["s7", "s8"]))
    easy, hard = made["sets"]["a"], made["sets"]["b"]
    assert (easy["n"], hard["n"]) == (360, 240)
    assert easy["systems"].keys() == hard["systems"].keys() == made["systems"].keys()
    easy, hard = easy["systems"][FINAL], hard["systems"][FINAL]
    assert easy["tokens"] == [20, 20, 20] and hard["tokens"] == [60, 60, 60]
    assert (easy["thinks"][0], hard["thinks"][0]) == (0, 1) and 0.98 < hard["thinks"][1] < 1
    off = [made["sets"][of]["systems"]["always-off"]["accuracy"][0] for of in "ab"]
    assert off == [1, 0]
    told = tables.text(made).splitlines()
    assert "| system | a, 360 | b, 240 |" in told
    (row,) = (line for line in told if line.startswith(f"| {FINAL} | 100.0 % [") and ";" in line)
    assert "]; 20 tokens; thinks 0 % |" in row and "]; 60 tokens; thinks 100 % |" in row


def test_queries_that_are_no_mixture_have_no_sets(finished):
    made = summary.of(accepted.runs(finished, ["s7", "s8"]))
    assert made["sets"] == {} and "tokens; thinks" not in tables.text(made)


def control(outputs: Path, run: str, name: str, stage: str, **settings) -> Path:
    """The same run under other settings of a stage."""
    made = shutil.copytree(outputs / run, outputs / name)
    edit(made / stage / "run.json", lambda record: record["settings"].update(settings))
    return made


def test_every_key_is_written_for_every_system(outputs):
    names = []
    for seed in (7, 8):
        control(outputs, f"s{seed}", f"grpo{seed}", STAGES[2], advantages="grpo")
        control(outputs, f"s{seed}", f"votes{seed}", STAGES[1], votes="teachers")
        names += [f"grpo{seed}", f"votes{seed}"]
    shutil.rmtree(outputs / "s7" / "07_case_studies", ignore_errors=True)
    made = json.loads(json.dumps(summary.of(accepted.runs(outputs, ["s7", "s8"], names))))
    assert {"profile", "commit", "seeds", "tuning_seeds", "n", "twins", "systems"} <= {*made}
    assert {"n_is", "twins_of", "claims_rule"} <= {*made} and made["twins"] == 0
    assert {*NAMED} <= {*made["systems"]}
    for name, row in made["systems"].items():
        assert {*SYSTEM} <= {*row}, name
        assert len(row["accuracy"]) == len(row["tokens"]) == 3, name
        assert [*row["think_on"]] == ["1", "2", "3", "4", "5"], name
    for name in (COLD, FINAL, "GRPO"):
        assert None not in made["systems"][name].values(), name
    assert {name: len(made["against_always_on"][name]) for name in AGAINST} == AGAINST
    assert made["claims"] and all(one["held"] in (True, False, None) for one in made["claims"])
    assert {"claim", "measured", "held"} <= {*made["claims"][0]}


def test_a_broken_gate_is_worse_than_always_thinking():
    """Never thinking loses 40 points, and saves two thirds of the tokens."""
    arms = gates.gated(gates.never)
    final, on = (gates.arms.with_flags(arms[arms["system"].eq("final")]), None)
    auto, on = (final[final["arm"].eq(arm)] for arm in ("auto", "on"))
    found = summary.against_always_on([{"final": auto, "always-on": on}])
    assert found["accuracy_difference"][0] == -0.4 and found["accuracy_difference"][1] < -0.4
    assert found["tokens_saved"][0] == round(2 / 3, 4) and found["power"] < 0.5


@pytest.mark.parametrize(
    ("verdicts", "held", "count"),
    [
        ((True, True), True, 2),
        ((True, False), False, 1),
        ((True, None), False, 1),
        ((None, None), None, 0),
        ((True, "absent"), False, 1),
    ],
)
def test_a_claim_is_held_if_every_seed_holds_it(outputs, verdicts, held, count):
    for name, said in zip(("s7", "s8"), verdicts, strict=True):
        row = FALLS | {"measured": f"by {name}", "held": said}
        rows = [] if said == "absent" else [row, row | {"claim": "Fact", "kind": "fact"}]
        (outputs / name / STAGES[3] / "verdict.json").write_text(json.dumps(rows))
    (claim,) = summary.claims(accepted.runs(outputs, ["s7", "s8"]).reported)
    assert claim["held"] is held and len(claim["held_in"]) == count
    assert claim["measured"].startswith(f"held in {count} of 2 seeds; seed 7: by s7")


def test_twins_are_counted_whatever_the_names_and_wishes(outputs):
    run = outputs / "s7"
    first, second = asked()[:2]
    *history, last = first["messages"]
    renamed = [*history, last | {"content": f"Bob: {last['content']}"}]
    *history, last = second["messages"]
    wished = [*history, last | {"content": f"{last['content']} Think for 3 minutes."}]
    rows = [
        first | {"messages": renamed},
        second | {"messages": wished, "plain": second["messages"]},
        *(row for row in world.queries(20, seed=1, split="stage_1") if not twice(row)),
    ]
    write_jsonl(run / STAGES[1] / "corpus.jsonl", rows)
    found = {one.name: twins.count(one) for one in accepted.runs(outputs, ["s7", "s8"]).reported}
    assert found == {"s7": twice(first) + twice(second), "s8": 0}


def twice(row: dict) -> int:
    """How many prompts have the problem of this one."""
    return sum(kin(other) == kin(row) for other in asked())


def test_a_problem_that_base_and_teachers_may_have_read_is_a_twin(outputs):
    """Of stage 06's prompts three are replaced by problems of the training splits."""
    sampled = outputs / "s8" / STAGES[3]
    rows = {f"q{i}": row | {"id": f"q{i}"} for i, row in enumerate(world.queries(3, 0, "train"))}
    write_jsonl(sampled / "queries.jsonl", [rows.get(row["id"], row) for row in asked()])
    arms = [json.loads(line) for line in (sampled / "arms.jsonl").read_text().splitlines()]
    own = {name: {"cluster": kin(row), "category": row["category"]} for name, row in rows.items()}
    write_jsonl(sampled / "arms.jsonl", [one | own.get(one["id"], {}) for one in arms])
    found = accepted.runs(outputs, ["s7", "s8"]).reported
    assert [twins.count(one) for one in found] == [0, 3]
    assert "base and the teachers never read" in twins.compared_with(found[0])


def test_the_other_votes_are_rows_of_their_own_before_and_after_rl(outputs):
    for seed in (7, 8):
        run = shutil.copytree(outputs / f"s{seed}", outputs / f"teachers{seed}")
        edit(run / STAGES[1] / "run.json", lambda r: r["settings"].update(votes="teachers"))
    made = summary.of(accepted.runs(outputs, ["s7", "s8"], ["teachers7", "teachers8"]))
    theirs = {f"{name} (teachers' votes)" for name in ("cold start", "final")}
    assert {COLD, FINAL} | theirs == {name for name in made["systems"] if "votes" in name}


def test_a_control_is_a_row_of_its_own(outputs):
    for seed in (7, 8):
        run = control(outputs, f"s{seed}", f"grpo{seed}", STAGES[2], advantages="grpo")
        lines = (run / STAGES[3] / "arms.jsonl").read_text().replace('"tokens":60', '"tokens":70')
        (run / STAGES[3] / "arms.jsonl").write_text(lines)
    with pytest.raises(UserError, match="A control needs the seeds 7, 8; grpo7 has others"):
        accepted.runs(outputs, ["s7", "s8"], ["grpo7"])
    with pytest.raises(UserError, match="'s7' has the settings of the reported runs"):
        accepted.runs(outputs, ["s7", "s8"], ["s7"])
    made = summary.of(accepted.runs(outputs, ["s7", "s8"], ["grpo8", "grpo7"]))
    assert made["systems"]["GRPO"]["tokens"][0] == 40 and made["n"] == 600
    assert made["systems"][FINAL]["tokens"][0] == 36


def test_pages_are_copied_as_far_as_there_is_room_and_links_lead_somewhere(outputs, monkeypatch):
    for name in ("s7", "s8"):
        (outputs / name / STAGES[3] / "figures" / "a.svg").write_text("x" * 10**6)
    monkeypatch.setattr(pages, "LIMIT", pages.ROOM + 6 * 10**5)
    chosen = accepted.runs(outputs, ["s7", "s8"])
    out = pages.write(chosen, outputs / "reviews" / "mine")
    there = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    named = {"summary.json", "README.md", "index.html"}
    assert named | {"s8/06_evaluation/report.html", "s7/index.html"} <= there
    assert "s7/06_evaluation/figures/a.csv" in there
    assert not [n for n in there if re.search(r"svg|safetensors|arms|\.log|ipynb", n)]
    page = (out / "s7/06_evaluation/report.html").read_text()
    assert '<a class="x" href="../index.html#a">' in page and "<a>SVG</a>" in page
    assert 'href="#top"' in page and 'href="https://x.org/a"' in page
    assert "2 files (.svg)" in (out / "README.md").read_text()
    index = (out / "index.html").read_text()
    links = re.findall(r'(?:href|src)="([^"#]+)"', index)
    assert "s7/index.html" in links and all((out / link).is_file() for link in links)
    assert FINAL in index and "@import" not in index and "url(http" not in index
    record = json.loads((out / "s7/06_evaluation/run.json").read_text())
    assert "host" not in record and str(outputs) not in (out / "summary.json").read_text()
    assert [path.name for path in out.parent.iterdir()] == ["mine"]  # nothing half made is left
    with pytest.raises(UserError, match="is there already; remove it or give another --out"):
        pages.write(chosen, out)


def test_the_command_says_what_it_wrote(project, capsys):
    (project / "outputs").mkdir()
    make(project / "outputs", "demo", 100)
    assert cli.main(["review", "demo"]) == 2
    assert "Profile 'nano' was tuned on seed 100; report runs" in capsys.readouterr().err
    assert cli.main(["review", "demo", "--tuned"]) == 0
    out = project / "outputs" / "reviews" / "nano"
    made = json.loads((out / "summary.json").read_text())
    told = capsys.readouterr().out
    assert told == f"{tables.text(made)}\n\n{out / 'index.html'}\n"
    assert made["tuned_on_these"] is True and made["claims"][0]["measured"] == "-2100 %"
    assert "chosen while looking at these seeds" in (out / "README.md").read_text()
    assert records.stage_folders(out) == []  # a review is no run


def test_reviews_are_committed_and_runs_are_not():
    def ignored(path: str) -> bool:
        command = ["git", "-C", str(CHECKOUT), "check-ignore", "--quiet", "--no-index", path]
        return subprocess.run(command, check=False).returncode == 0

    for path in ("summary.json", "index.html", "demo/06_evaluation/figures/a.png"):
        assert not ignored(f"outputs/reviews/nano/{path}"), path
    assert ignored("outputs/demo/06_evaluation/report.html") and ignored("outputs/demo.zip")
