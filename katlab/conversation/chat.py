"""Talk to a student of a run: judge, thought and answer apart, modes forced or not.

Report section 6. A mode is forced by program (a prefilled judge, which cannot be refused) or in the
words of the query, which the model may or may not obey.

    talk = chat.load(stage)
    said = talk.reply([{"role": "user", "content": "Compute 3+4."}], mode="off")
    said.judge, said.thought, said.answer
"""

from dataclasses import dataclass, field

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from katlab import UserError, models, samples, template
from katlab.arms import forced
from katlab.generation import local
from katlab.lab import FinishedRun, Journal, StageRun, stages

STUDENTS = ("04_cold_start", "05_step_srpo")  # those that write judge and decision themselves


@dataclass(frozen=True)
class Reply:
    """One reply in its parts; a part that the model did not write is None.

    `tokens` counts judge, thought, answer and all (with tags and end token); `forced` says which
    mode was prefilled ("auto": none); `problem` is one of `template.PROBLEMS` or None. `seconds`
    has the same keys for a reply that was streamed.
    """

    messages: list[dict]
    forced: str
    mode: str | None
    problem: str | None
    judge: str
    thought: str | None
    answer: str | None
    tokens: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class Chat:
    """A model to talk to, the words of [prompts] that force it, and how many it answers at once."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    words: object
    batch_size: int = 128
    journal: Journal | None = None  # of replies: what a kill leaves is not asked again

    def reply(
        self, messages: list[dict], mode: str = "auto", tools: list[dict] | None = None, **how
    ) -> Reply:
        """One reply to a conversation that ends with a user or tool turn; `how` as in `replies`."""
        return self.replies([(messages, tools)], mode, **how)[0]

    def replies(
        self,
        conversations: list[tuple[list[dict], list[dict] | None]],
        mode: str = "auto",
        *,
        max_new_tokens: int = 256,
        temperature: float = 0.0,
        seed: int = 0,
    ) -> list[Reply]:
        """A reply to each (messages, tools); `mode` "on" or "off" prefills judge and decision.

        Temperature 0 is greedy. Raises UserError for an unknown mode.
        """
        tok, prefill = self.tokenizer, self.prefill(mode)
        generated = local.sample(
            self.model,
            tok,
            [template.prompt(tok, messages, tools) + prefill for messages, tools in conversations],
            max_new_tokens=max_new_tokens,
            temperature=temperature,
            batch_size=self.batch_size,
            seed=seed,
            journal=self.journal,
        )
        head = tok(prefill, add_special_tokens=False)["input_ids"] if prefill else []
        return [
            parts(tok, messages, mode, [*head, *ids])
            for (messages, _), ids in zip(conversations, generated, strict=True)
        ]

    def prefill(self, mode: str) -> str:
        """The judge and the decision that force a mode, "" for auto; UserError for another mode."""
        if mode not in ("auto", *template.MODES):
            raise UserError(f"There is no mode {mode!r}; use auto, on or off.")
        return forced(self.words, mode)


def parts(tok: PreTrainedTokenizerBase, messages: list[dict], forced: str, ids: list[int]) -> Reply:
    """The parts of a reply's token ids, a prefilled judge included."""
    parsed = template.parse(ids, template.Tags.of(tok))
    found = samples.parts(tok, ids, parsed)
    tokens = {name: found[f"{name}_tokens"] for name in samples.PARTS}
    return Reply(
        messages=messages,
        forced=forced,
        mode=parsed.mode,
        problem=parsed.problem,
        judge=found["judge"] or "",
        thought=found["thought"],
        answer=found["answer"],
        tokens=tokens | {"all": parsed.length},
    )


def load(stage: StageRun) -> Chat:
    """The final student of the run, ready to talk."""
    folder = stage.upstream("05_step_srpo") / "checkpoints" / "student"
    config = stage.config
    loaded, journal = models.load_from(folder, config.model), stage.journal("replies.jsonl")
    return Chat(*loaded, config.prompts, config.model.sample_batch, journal)


def student(run: FinishedRun, stage: str = STUDENTS[-1]) -> Chat:
    """A student of a finished run, ready to talk; nothing is written there.

    Raises UserError for a stage whose model does not write the judge, and for one without a model.
    """
    name = stages.find(stage).name
    if name not in STUDENTS:
        raise UserError(f"{name} has no student that decides; choose {' or '.join(STUDENTS)}.")
    config = run.config
    loaded = models.load_from(run[name].student, config.model)
    return Chat(*loaded, config.prompts, config.model.sample_batch)
