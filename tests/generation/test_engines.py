"""What every engine does alike: settings, end tokens, prefills, seeds, order, limits, a kill.

The same tests hold transformers, vLLM's stand-in (our adapter, on any machine) and vLLM itself,
where it is installed and there is a GPU. The student is one of ours: deepened, with the tags.
"""

import copy
import inspect
import os
import sys
from types import SimpleNamespace

import fake_vllm
import pytest
import torch
from conftest import CHECKOUT

from katlab import UserError, arms, models, template
from katlab.generation import engines, local, vllm_engine
from katlab.lab import Journal, StageRun, profiles
from katlab.tasks.nano import world

TIE = {"float32": 1e-3, "bfloat16": 0.15}  # logits that an engine's sums may put in either order
LIMIT = 48
KINDS = ("transformers", "stand-in", "vllm")


def write_student(folder, layers: int = 5, seed: int = 0):
    """A nano model with a layer more, the tags, and a little noise: a student's folder."""
    given = vars(profiles.load("nano").model) | {
        "student": str(CHECKOUT / "data_samples/nano/base")
    }
    model, tokenizer = models.load(SimpleNamespace(**given))
    torch.manual_seed(seed)
    for extra in range(layers - len(model.model.layers)):
        model.model.layers.append(copy.deepcopy(model.model.layers[extra]))
    model.config.num_hidden_layers = len(model.model.layers)
    model.config.layer_types = ["full_attention"] * len(model.model.layers)
    template.add_tags(tokenizer)
    if len(tokenizer) > model.get_input_embeddings().num_embeddings:
        model.resize_token_embeddings(len(tokenizer), pad_to_multiple_of=8)
    with torch.no_grad():
        for weight in model.parameters():
            weight += 0.01 * weight.std() * torch.randn_like(weight)
    models.save(model, tokenizer, folder, SimpleNamespace(dtype="float32"))
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return write_student(tmp_path_factory.mktemp("run") / "checkpoints" / "student")


def config_of(kind: str, dtype: str = "float32") -> SimpleNamespace:
    engine = "transformers" if kind == "transformers" else "vllm"
    return SimpleNamespace(**vars(profiles.load("nano").model) | {"engine": engine, "dtype": dtype})


@pytest.fixture(scope="module", params=KINDS)
def engine(request, folder, tmp_path_factory):
    """A student's model, tokenizer and `ask(prompts, **how)` by one engine."""
    if request.param == "vllm":
        pytest.importorskip("vllm")
        if not torch.cuda.is_available():
            pytest.skip("vLLM needs a GPU")
    config = config_of(request.param, "bfloat16" if request.param == "vllm" else "float32")
    model, tokenizer = models.load_from(folder, config)

    def ask(asked: list[str], **how) -> list[list[int]]:
        return engines.sample(config, model, tokenizer, asked, **{"max_new_tokens": LIMIT} | how)

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setattr(vllm_engine, "_running", {})
        if request.param == "stand-in":
            for name, module in fake_vllm.module().items():
                patch.setitem(sys.modules, name, module)
        yield SimpleNamespace(model=model, tokenizer=tokenizer, ask=ask, dtype=config.dtype)


def prompts(tokenizer, number: int = 6) -> list[str]:
    said = [f"Compute {a}+{a + 3}." + " Show it." * (a % 3) for a in range(2, 2 + number)]
    return [template.prompt(tokenizer, [{"role": "user", "content": text}]) for text in said]


def greedy(engine, asked: list[str], **how) -> list[list[int]]:
    """What transformers answers."""
    how = {"max_new_tokens": LIMIT} | how
    return local.sample(engine.model, engine.tokenizer, asked, temperature=0.0, **how)


def same(engine, prompt: str, one: list[int], other: list[int]) -> bool:
    """Whether two greedy replies agree, up to a tie in the model's own logits."""
    if one == other:
        return True
    at = next((i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b), None)
    if at is None:
        return False
    ids = engine.tokenizer(prompt, add_special_tokens=False)["input_ids"] + one[:at]
    with torch.inference_mode():
        logits = engine.model(torch.tensor([ids], device=engine.model.device)).logits[0, -1]
    return abs(float(logits[one[at]] - logits[other[at]])) < TIE[engine.dtype]


def test_greedy_replies_are_the_same(engine):
    asked = prompts(engine.tokenizer)
    got, expected = engine.ask(asked, temperature=0.0), greedy(engine, asked)
    assert all(same(engine, *one) for one in zip(asked, expected, got, strict=True))
    assert len({tuple(ids) for ids in got}) > 1 and any(len(ids) < LIMIT for ids in got)


def test_a_reply_ends_with_its_first_end_token(engine, monkeypatch):
    asked = prompts(engine.tokenizer)
    free = engine.ask(asked, temperature=0.0)
    ends = {engine.tokenizer.eos_token_id, *template.end_ids(engine.tokenizer)}
    for ids in free:
        assert not ends & set(ids[:-1]) and (ids[-1] in ends or len(ids) == LIMIT)
    also = next(token for token in free[0][1:] if token not in (free[0][0], *ends))
    monkeypatch.setattr(engine.model.generation_config, "eos_token_id", [*ends, also])
    cut = [ids[: ids.index(also) + 1] if also in ids else ids for ids in free]
    got = engine.ask(asked, temperature=0.0)
    assert got[0] == cut[0] and all(ids[-1] in ends | {also} or len(ids) == LIMIT for ids in got)
    assert engine.dtype != "float32" or got == cut


def test_a_prefilled_reply_is_continued(engine):
    tok = engine.tokenizer
    asked = prompts(tok)
    begun = [template.judged("off", "answer directly, think off.") for _ in asked]
    whole = [prompt + words for prompt, words in zip(asked, begun, strict=True)]
    expected, got = greedy(engine, whole), engine.ask(whole, temperature=0.0)
    assert all(same(engine, *one) for one in zip(whole, expected, got, strict=True))
    assert got != engine.ask(asked, temperature=0.0), "the prefill is read"
    judge = template.Tags.of(tok).ids["<judge>"]
    assert judge in tok(whole[0], add_special_tokens=False)["input_ids"], "as a tag"


def test_seeds_repeat_and_differ(engine):
    asked = prompts(engine.tokenizer)
    first = engine.ask(asked, seed=3)
    assert engine.ask(asked, seed=3) == first
    assert engine.ask(asked, seed=4) != first


def test_samples_of_a_prompt_stand_together_in_order(engine):
    asked = prompts(engine.tokenizer, 4)
    thrice = [prompt for prompt in asked for _ in range(3)]
    got = engine.ask(thrice, temperature=0.0)
    expected = [ids for ids in greedy(engine, asked) for _ in range(3)]
    assert all(same(engine, *one) for one in zip(thrice, expected, got, strict=True))
    drawn = engine.ask(thrice, temperature=1.0, seed=1)
    groups = [{tuple(ids) for ids in drawn[i : i + 3]} for i in range(0, len(drawn), 3)]
    assert len(drawn) == 12 and any(len(group) > 1 for group in groups), "each is drawn anew"


def test_the_limit_holds_and_only_cuts(engine):
    asked = prompts(engine.tokenizer)
    short = engine.ask(asked, temperature=0.0, max_new_tokens=3)
    assert max(map(len, short)) == 3
    expected = [ids[:3] for ids in greedy(engine, asked)]
    assert all(same(engine, *one) for one in zip(asked, expected, short, strict=True))


def test_a_small_nucleus_is_greedy(engine):
    asked = prompts(engine.tokenizer)
    got, expected = engine.ask(asked, top_p=1e-6, seed=5), greedy(engine, asked)
    assert all(same(engine, *one) for one in zip(asked, expected, got, strict=True))


def test_replies_are_kept_as_they_come(engine, tmp_path):
    asked = prompts(engine.tokenizer, 40)  # more than a batch of transformers
    how = {"seed": 2, "max_new_tokens": 4}
    whole = engine.ask(asked, **how)
    kept = Journal(tmp_path / "replies.jsonl")

    def kill(done: int, total: int):
        assert 0 < done < total == 40
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        engine.ask(asked, **how, journal=kept, on_batch=kill)
    assert len(kept) > 0
    seen: list[int] = []
    again = Journal(tmp_path / "replies.jsonl")
    got = engine.ask(asked, **how, journal=again, on_batch=lambda done, _: seen.append(done))
    assert got == whole and seen[-1] == 40
    assert engine.ask(asked, **how, journal=again) == whole
    other = how | {"seed": 9}
    assert engine.ask(asked, **other, journal=again) != whole, "other draws are not these"


def test_nothing_to_ask_is_no_reply(engine):
    assert engine.ask([]) == []


@pytest.fixture
def started(monkeypatch, tmp_path):
    """Engines that the stand-in started in this test, by an adapter without any."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(vllm_engine, "_running", {})
    for name, module in fake_vllm.module().items():
        monkeypatch.setitem(sys.modules, name, module)
    return fake_vllm.LLM.made


def ask(folder, **how) -> list[list[int]]:
    config = config_of("vllm")
    config.engine_memory = how.pop("engine_memory", 0.4)
    model, tokenizer = models.load_from(folder, config)
    how = {"max_new_tokens": 4, "temperature": 0.0} | how
    return engines.sample(config, model, tokenizer, how.pop("asked", prompts(tokenizer, 2)), **how)


def test_one_engine_serves_all_students_of_a_shape_and_sleeps_between(started, folder, tmp_path):
    other = write_student(tmp_path / "other", seed=1)
    deeper = write_student(tmp_path / "deeper", layers=6)
    config = config_of("transformers")
    for student in (folder, other, other, folder, deeper):
        model, tokenizer = models.load_from(student, config)
        expected = local.sample(
            model, tokenizer, prompts(tokenizer, 2), max_new_tokens=4, temperature=0.0
        )
        assert ask(student) == expected, "the weights of that folder answered"
        assert not any(llm.awake for llm in started)
    first, second = started
    assert first.loads == [str(folder), str(other), str(folder)] and first.fresh
    assert second.loads == [str(deeper)]
    assert first.started_from != second.started_from


def test_weights_that_are_written_anew_are_loaded_anew(started, folder, tmp_path):
    student = write_student(tmp_path / "student")
    ask(student)
    later = (student / "model.safetensors").stat().st_mtime_ns + 10**9
    os.utime(student / "model.safetensors", ns=(later, later))
    ask(student)
    assert started[0].loads == [str(student)] * 2


def test_an_engine_that_was_interrupted_is_given_up(started, folder):
    def kill(done: int, total: int):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt) as kept:  # as a notebook keeps its last traceback
        ask(folder, on_batch=kill)
    assert kept and not started[0].llm_engine.engine_core.alive
    assert ask(folder) and len(started) == 2


def test_nothing_is_started_for_replies_that_are_kept(started, folder, tmp_path):
    kept = Journal(tmp_path / "replies.jsonl")
    first = ask(folder, journal=kept)
    started.clear()
    vllm_engine._running.clear()
    assert ask(folder, journal=kept) == first and not started


def test_a_link_has_one_name_for_a_shape_and_leads_to_the_last_folder(started, folder, tmp_path):
    other = write_student(tmp_path / "other", seed=1)
    links = []
    for student in (folder, other):
        model, _ = models.load_from(student, config_of("transformers"))
        links.append(vllm_engine.steady(model))
        assert os.path.realpath(links[-1]) == str(student)
    assert links[0] == links[1]


def test_what_vllm_lacks_is_one_sentence_that_names_the_remedy(started, folder, monkeypatch):
    with pytest.raises(UserError, match=r"\(Free memory on device is less than desired\); .* 0.97"):
        ask(folder, engine_memory=0.97)
    with pytest.raises(UserError, match="a reply of 600 are more than the 512 tokens that vLLM"):
        ask(folder, max_new_tokens=600)
    assert ask(folder), "the engine goes on"
    monkeypatch.setattr(vllm_engine, "_running", {})
    monkeypatch.setitem(sys.modules, "vllm", None)
    remedy = r"needs the package vllm .*pip install '\.\[vllm\]'; without: -o model.engine=tran"
    with pytest.raises(UserError, match=remedy):
        ask(folder)


def test_an_arm_is_the_same_by_either_engine(started, folder, tmp_path):
    rows = world.queries(6, seed=0, split="eval")
    frames = []
    for engine in ("transformers", "vllm"):
        stage = StageRun.create(
            tmp_path, engine, "06_evaluation", profile="nano", overrides={"model.engine": engine}
        )
        model, tokenizer = models.load_from(folder, stage.config.model)
        how = {"max_new_tokens": 8, "temperature": 0.0, "samples": 2}
        for arm in arms.ARMS:
            frames.append(arms.run_arm(stage, model, tokenizer, rows, arm, **how))
        assert (stage.dir / "replies.jsonl").is_file()
    for by_transformers, by_vllm in zip(frames[:3], frames[3:], strict=True):
        assert by_transformers.equals(by_vllm)
    assert len(started) == 1


def test_the_stand_in_takes_what_vllm_takes():
    vllm = pytest.importorskip("vllm")
    from vllm.engine.arg_utils import EngineArgs

    asked = set(inspect.signature(vllm.LLM.__init__).parameters)
    ours = set(inspect.signature(fake_vllm.LLM.__init__).parameters) - {"kwargs"}
    assert ours <= asked
    assert fake_vllm.ENGINE <= set(inspect.signature(EngineArgs).parameters)
    assert fake_vllm.names() <= set(inspect.signature(vllm.SamplingParams).parameters)
    for name in ("enqueue", "sleep", "wake_up", "collective_rpc", "reset_prefix_cache"):
        theirs = set(inspect.signature(getattr(vllm.LLM, name)).parameters)
        assert set(inspect.signature(getattr(fake_vllm.LLM, name)).parameters) <= theirs, name
