"""A teacher with the student's own tokenizer: KL by hand, the places of its tokens, off by none."""

from math import log

import decoder
import pytest
import torch
from torch import nn

from katlab import lab, template
from katlab.mtp_distillation import dataset, mtp, uld
from katlab.mtp_distillation import signals as data
from katlab.mtp_distillation.trainer import losses
from katlab.tasks.nano import build, world

LOG2 = log(2)


@pytest.fixture(scope="module")
def tokenizers():
    """The student's, with the tags; the same without them; another one."""
    rows = world.queries(30, seed=0, split="eval")
    texts = [r["messages"][-1]["content"] + r["thought"] + r["direct"] for r in rows]
    student, parent = build.tokenizer("student", texts), build.tokenizer("student", texts)
    template.add_tags(student)
    return student, parent, build.tokenizer("teacher", texts)


def logs(*probabilities: float) -> torch.Tensor:
    return torch.tensor([probabilities]).log()


def test_divergence_on_paper():
    # 1/2 ln(2) + 1/4 ln(1/2) + 1/4 ln(1) = 1/4 ln 2; logits may be off by a constant
    found = uld.divergence(logs(0.5, 0.25, 0.25) + 3.0, logs(0.25, 0.5, 0.25))
    assert found.item() == pytest.approx(LOG2 / 4)
    assert uld.divergence(logs(0.5, 0.5), logs(0.5, 0.5)).item() == pytest.approx(0.0, abs=1e-6)
    # the student has a further token, to which it gives half: ln(1/2 : 1/4)
    assert uld.divergence(logs(0.5, 0.5), logs(0.25, 0.25, 0.5)).item() == pytest.approx(LOG2)
    # the teacher's matrix is padded by a row: (1/4, 1/4) of three is (1/2, 1/2) of two
    assert uld.divergence(logs(0.25, 0.25, 0.5), logs(0.5, 0.5)).item() == pytest.approx(
        0, abs=1e-6
    )
    # at T = 2 the teacher's 4 : 1 is 2 : 1, and 2/3 ln(4/3) + 1/3 ln(2/3)
    on_paper = 2 / 3 * log(4 / 3) + 1 / 3 * log(2 / 3)
    assert uld.divergence(logs(0.8, 0.2), logs(0.5, 0.5), 2.0).item() == pytest.approx(on_paper)


def made_up(temperature: float = 1.0, chunk: int = 4096):
    """Four targets, a teacher of another width that speaks of the first and the third."""
    torch.manual_seed(0)
    hidden, said = torch.randn(4, 5, requires_grad=True), torch.randn(4, 3)
    head, theirs = nn.Linear(5, 7, bias=False), nn.Linear(3, 6, bias=False)
    paired = torch.tensor([True, False, True, False])
    found = uld.token_losses(
        hidden,
        head,
        torch.tensor([1, 2, 3, 4]),
        torch.full((4,), -1),
        torch.empty(0, 1),
        torch.empty(0),
        temperature=temperature,
        chunk=chunk,
        told=[uld.Told(said, theirs, paired)],
    )
    return hidden, said, head, theirs, found


@pytest.mark.parametrize("temperature", [1.0, 2.0])
def test_kl_is_there_where_the_teacher_speaks_and_moves_the_student_alone(temperature):
    hidden, said, head, theirs, found = made_up(temperature)
    p = (theirs(said) / temperature).softmax(-1)
    q = (head(hidden) / temperature).softmax(-1)[:, :6]
    on_paper = (p * (p / q).log()).sum(-1)
    assert found.kl[[1, 3]].tolist() == [0.0, 0.0]
    torch.testing.assert_close(found.kl[[0, 2]], on_paper[[0, 2]])
    found.kl.sum().backward()
    assert hidden.grad.abs().amax(-1).gt(0).tolist() == [True, False, True, False]
    assert theirs.weight.grad is None and head.weight.grad is not None


def test_chunks_change_nothing():
    whole, parts = made_up(), made_up(chunk=3)
    for one, other in zip(whole[-1], parts[-1], strict=True):
        torch.testing.assert_close(one, other)
    for made in (whole, parts):
        made[-1].kl.sum().backward()
    torch.testing.assert_close(whole[0].grad, parts[0].grad)


def test_whose_tokenizer_it_is(tokenizers):
    student, parent, other = tokenizers
    assert data.same_tokenizer(student, parent)
    assert not data.same_tokenizer(student, other)
    assert not data.same_tokenizer(parent, student)  # it knows tokens that the student does not


def rows(as_said: bool) -> list[dict]:
    found = []
    for i, query in enumerate(world.queries(12, seed=0, split="train")):
        row = query | {"mode": "on" if i % 2 else "off", "answer": query["direct"]}
        if row["mode"] == "off":
            row["thought"] = None
        elif as_said:  # no tags, and the answer stands in the thought as well
            row["reply"] = f"{row['thought']}\nAnswer: {row['answer']}"
        found.append(row)
    return found


@pytest.mark.parametrize("as_said", [False, True])
def test_every_token_that_is_paired_is_the_same_token(tokenizers, as_said):
    student, parent, _ = tokenizers
    reader = data.Reader(None, parent, "Be brief.", 0)
    along = {"on": reader, "off": reader._replace(request="")}
    chosen = rows(as_said)
    columns, tables, left_out = dataset.build(chosen, student, None, 400, along)
    assert not left_out and len(tables.top) == 0
    for row, column in zip(chosen, columns, strict=True):
        asked = parent.decode(column["teacher_ids"])
        assert ("Be brief." in asked) == (row["mode"] == "on")
        assert asked.endswith(row.get("reply") or row["answer"])
        pairs = [(t, at) for t, at in enumerate(column["teacher_at"]) if at >= 0]
        assert all(column["input_ids"][t] == column["teacher_ids"][at] for t, at in pairs)
        assert all(column["labels"][t] != -100 for t, _ in pairs)
        assert [at for _, at in pairs] == sorted({at for _, at in pairs})
        spelled = student.decode([column["input_ids"][t] for t, _ in pairs])
        whole = (row["thought"] or "") + row["answer"]
        assert len(whole) - len(spelled) <= 4  # a token that reaches into a tag's newline
    assert any(row["mode"] == "on" for row in chosen)


def test_a_teacher_that_is_the_student_and_reads_the_same_is_at_no_distance(tokenizers):
    """And another state of the teacher's moves the KL of the one token that it predicts."""
    student, _, _ = tokenizers
    model = decoder.tiny(vocab_size=len(student), initializer_range=0.2)
    columns, tables, _ = dataset.build(rows(False)[:2], student, None, 400)
    for column in columns:
        labels = enumerate(column["labels"])
        column["teacher_ids"], column["reader"] = column["input_ids"], 0
        column["teacher_at"] = [t if label != -100 else -1 for t, label in labels]
    batch = dataset.Collator(tables)(columns)
    settings = lab.load_profile("nano").mtp_distillation
    ((row, at, found),) = losses(model, batch, settings, [model])
    assert found.kl.abs().max() < 1e-5 and len(found.kl) == (batch["labels"] != -100).sum()
    hit = int(at[row == 1][2])  # the third target of the second row
    batch["teacher_ids"] = batch["teacher_ids"].clone()
    batch["teacher_ids"][1, hit] += 1  # read at its own place, so it speaks of later tokens alone
    ((_, _, moved),) = losses(model, batch, settings, [model])
    first = at[row == 1][moved.kl[row == 1] > 1e-4].min()
    assert moved.kl[row == 0].abs().max() < 1e-5 and first == hit + 1


def test_targets_of_a_batch_are_those_of_each_depth(tokenizers):
    student, _, _ = tokenizers
    columns, tables, _ = dataset.build(rows(False)[:3], student, None, 400)
    batch = dataset.Collator(tables, depth=2)(columns)
    for k in range(3):
        row, at = mtp.targets(batch["labels"], k)
        assert torch.equal(batch[f"row_{k}"], row) and torch.equal(batch[f"at_{k}"], at)
    assert "row_1" not in dataset.Collator(tables)(columns)
