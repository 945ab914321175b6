"""Sets of questions by a map: GSM8K's, MATH's and MBPP's forms, local files, mistakes."""

import json

import datasets
import pytest

from katlab import UserError, rewards
from katlab.rewards import plans
from katlab.tasks import files, hub

GSM8K = [
    {"question": "Ann has 2 pens and buys 3. How many?", "answer": "2+3=<<2+3=5>>5\n#### 5"},
    {"question": "A house costs $1,200 and loses $0.50.", "answer": "so\n#### 1,199.50"},
    {"question": "It was 3 degrees and fell by 7.", "answer": "3-7=-4\n#### -4"},
]
MATH = [
    {"problem": "Half of one?", "solution": "So \\boxed{\\frac{1}{2}}.", "level": 1},
    {
        "problem": "A point.",
        "solution": "$\\boxed{1}$ is wrong, wait: \\boxed{(1, 2)}",
        "level": "2",
    },
    {"problem": "A set.", "solution": "\\boxed{\\{1,2\\}}", "level": "Level 5"},
]
MBPP = [
    {"text": "Write a function to double a number.", "code": "", "test_setup_code": "",
     "test_list": ["assert double(2) == 4", "assert double(-1) == -2"]},
    {"text": "Write a function to add two numbers.", "code": "", "test_setup_code": "one = 1",
     "test_list": ["assert add(one, 2) == 3"]},
    {"text": "Write a function to reverse a list.", "code": "", "test_setup_code": None,
     "test_list": ["assert turned([1, 2]) == [2, 1]"]},
]  # fmt: skip


@pytest.fixture
def own(tmp_path):
    """own(text, name=rows) writes the rows as JSONL and a map with their paths; gives its path."""

    def write(text: str, **rows) -> str:
        for name, given in rows.items():
            file = tmp_path / f"{name}.jsonl"
            file.write_text("".join(json.dumps(row) + "\n" for row in given))
            text = text.replace(f"<{name}>", str(file))
        (tmp_path / "mine.toml").write_text(text)
        return str(tmp_path / "mine.toml")

    return write


def test_gsm8k_answers_stand_behind_the_hashes(own):
    name = own('extends = "gsm8k"\ntrain = "<train>"\ntest = "<test>"', train=GSM8K, test=GSM8K[:1])
    rows = hub.read(name)
    assert [row["reference"] for row in rows] == ["5", "1199.50", "-4", "5"]
    assert [row["split"] for row in rows] == ["train"] * 3 + ["test"]
    assert rows[0]["messages"] == [{"role": "user", "content": GSM8K[0]["question"]}]
    assert (rows[0]["verifier"], rows[0]["category"], rows[0]["set"]) == ("math", "math", "mine")
    assert len({row["id"] for row in rows}) == 4
    [verdict] = rewards.grade([("math", "\\$1,199.5", rows[1]["reference"])])
    assert verdict.correct


def test_math_answers_stand_in_the_last_box_and_levels_are_difficulties(own):
    rows = hub.read(own('extends = "math500"\ntest = "<test>"', test=MATH))
    assert [row["reference"] for row in rows] == ["\\frac{1}{2}", "(1, 2)", "\\{1,2\\}"]
    assert [row["difficulty"] for row in rows] == [1, 2, 5]
    assert {row["split"] for row in rows} == {"test"}


def test_mbpp_asserts_become_a_code_reference(own):
    rows = hub.read(own('extends = "mbpp"\ntest = "<test>"', test=MBPP))
    assert rows[0]["reference"] == {"asserts": MBPP[0]["test_list"], "setup": ""}
    assert rows[1]["reference"]["setup"] == "one = 1" and rows[2]["reference"]["setup"] == ""
    assert rows[0]["verifier"] == rows[0]["category"] == "code"
    assert rows[0]["messages"][0]["content"].endswith("this test:\nassert double(2) == 4")
    assert all(plans.read(row["reference"]) for row in rows)


def test_every_row_is_a_query_row_and_the_shipped_maps_are_whole(own):
    for kind, rows in (("gsm8k", GSM8K), ("math500", MATH), ("mbpp", MBPP)):
        assert f"maps/{kind}.toml" in hub.SHIPPED and "/" in hub.load_map(kind).data
        for row in hub.read(own(f'extends = "{kind}"\ntest = "<test>"', test=rows)):
            files.Query.model_validate(row | {"split": None})


@pytest.mark.parametrize("kind", ["jsonl", "json", "parquet"])
def test_a_file_of_ones_own_in_each_format(tmp_path, kind):
    rows = [{"q": f"What is {n}+1?", "a": n + 1, "hard": word, "extra": {"k": [n]}}
            for n, word in enumerate(["easy", "so-so", "hard"])]  # fmt: skip
    file = tmp_path / f"sums.{kind}"
    if kind == "parquet":
        datasets.Dataset.from_list(rows).to_parquet(file)
    else:
        lines = "".join(json.dumps(row) + "\n" for row in rows)
        file.write_text(lines if kind == "jsonl" else json.dumps(rows))
    levels = {"easy": 1, "so-so": 3, "hard": 5}
    table = {"data": str(file), "prompt": "{q} {extra[k][0]}", "answer": "a", "read": "text",
             "category": "general", "level": "hard", "levels": levels}  # fmt: skip
    (tmp_path / "map.json").write_text(json.dumps(table))
    found = hub.read(str(tmp_path / "map.json"))
    assert [row["reference"] for row in found] == ["1", "2", "3"]
    assert [row["difficulty"] for row in found] == [1, 3, 5]
    assert found[2]["messages"][0]["content"] == "What is 2+1? 2"
    assert {row["split"] for row in found} == {None}
    assert hub.files(str(tmp_path / "map.json")) == [file]


def test_a_reference_may_be_what_its_verifier_takes(own):
    rows = [{"q": "Two colours?", "want": {"all": ["red", "blue"]}}]
    text = (
        'data = "<d>"\nprompt = "{q}"\nanswer = "want"\nread = "reference"\ncategory = "general"\n'
    )
    [row] = hub.read(own(text + 'verifier = "keywords"', d=rows))
    assert rewards.grade([(row["verifier"], "blue and red", row["reference"])])[0].correct
    with pytest.raises(UserError, match='read = "reference" needs the verifier that takes it'):
        hub.read(own(text, d=rows))


G, M = 'extends = "gsm8k"\ntest = "<d>"\n', 'extends = "math500"\ntest = "<d>"\n'


@pytest.mark.parametrize(
    "text, rows, told",
    [
        (
            G,
            [{"question": "?", "text": 1}],
            r"row 1 of \S+ has no column 'answer'; it has question",
        ),
        (
            G,
            [GSM8K[0], {"question": "?", "answer": "5"}],
            "row 2 of .*'5' has nothing to read as ha",
        ),
        (G, [{"question": " ", "answer": "#### 5"}], "the question is empty"),
        (M, [MATH[0] | {"level": "Level ?"}], "the level 'Level .' is none of 1 to 5; say what it"),
        (M, [MATH[0] | {"solution": "It is 5."}], "has nothing to read as boxed"),
        (
            G + "difficulty = 9\n",
            GSM8K,
            "'difficulty' takes a whole number at least 1 and at most 5",
        ),
        (G + 'red = "x"\n', GSM8K, "there is no 'red'; did you mean 'read'"),
        (G + 'data = "a/b"\n', GSM8K, "a map has data = a Hub id"),
        ('extends = "gsm9k"', GSM8K, "no map gsm9k; did you mean 'gsm8k'"),
        ('extends = "openai/gsm8k"', GSM8K, 'write one with data = "openai/gsm8k"'),
        ("extends = ", GSM8K, "is not valid TOML"),
        (G.replace("<d>", "none.jsonl"), GSM8K, "none.jsonl does not exist"),
        (G.replace("<d>", "none.json"), GSM8K, "none.json does not exist; correct it in the map"),
    ],
)
def test_a_mistake_is_one_sentence(own, text, rows, told):
    with pytest.raises(UserError, match=told) as raised:
        hub.read(own(text, d=rows))
    assert "\n" not in str(raised.value)


def test_a_map_that_extends_itself_is_told(own, tmp_path):
    name = own(f'extends = "{tmp_path / "mine.toml"}"')
    with pytest.raises(UserError, match="extends itself"):
        hub.read(name)


def test_a_set_of_the_hub_is_asked_for_by_its_map(monkeypatch):
    calls = []

    def given(*args, **options):
        calls.append((args, options))
        return GSM8K

    monkeypatch.setattr(datasets, "load_dataset", given)
    monkeypatch.setattr(hub, "reachable", lambda: True)
    hub._downloaded.cache_clear()
    assert len(hub.read("gsm8k")) == 6
    assert calls[0] == (("openai/gsm8k", "main"), {"split": "train", "revision": None})
    hub._downloaded.cache_clear()


def test_without_a_network_it_is_one_sentence_at_once(monkeypatch, tmp_path):
    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path)
    monkeypatch.setattr(hub, "reachable", lambda: False)
    before = datasets.config.HF_HUB_OFFLINE
    with pytest.raises(UserError, match="openai/gsm8k is not in the cache and the Hub cannot be"):
        hub.read("gsm8k")
    assert datasets.config.HF_HUB_OFFLINE == before
