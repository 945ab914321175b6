"""Step-SRPO on TRL's GRPOTrainer (report section 4.2).

`StepSRPOTrainer` keeps the rewards, already gathered over ranks, and replaces the (B,) advantages
by (B, T) ones (`katlab.step_srpo.advantages`). The loss is TRL's. Its other methods read the clock.
"""

import json
from pathlib import Path

import torch
from trl import GRPOTrainer

from katlab import samples, speed, template
from katlab.step_srpo.advantages import Rollouts, estimate, fine, spread
from katlab.step_srpo.config import StepSRPOConfig
from katlab.step_srpo.reward import reward_functions

PHASES = ("generation", "rewards", "training")  # of a step


def _step() -> dict:
    return dict.fromkeys(PHASES, 0.0) | {"drawn": 0, "lengths": []}


class StepSRPOTrainer(GRPOTrainer):
    """GRPO with the advantages that `args.advantages` names; every rollout joins a JSONL file.

    Its dataset has the columns prompt, id, category, difficulty, verifier, reference (JSON). Beside
    TRL's figures it logs `judge_agreement`, the share of the decided rollouts, of all ranks, whose
    judge names the mode taken (`samples.judge_agrees`, by the pattern `names_mode`), and seconds of
    a step by phase: generation (weights to vLLM included), rewards, training (all the rest).
    `steps` keeps them, with the tokens drawn and the lengths of the rows trained on, of this rank.
    """

    args: StepSRPOConfig

    def __init__(
        self,
        model,
        args: StepSRPOConfig,
        *,
        processing_class,
        rollouts: Path,
        names_mode: str,
        **kwargs,
    ):
        self.tags = template.Tags.of(processing_class)
        # TRL reads the end tokens here; a base model may still say its own.
        model.generation_config.eos_token_id = sorted(self.tags.eos)
        self.reasons: list[str] = []  # of the verdicts on this rank's last completions
        rewards = reward_functions(processing_class, args, names_mode, self.reasons)
        super().__init__(model, rewards, args, processing_class=processing_class, **kwargs)
        self.rollouts = rollouts
        self.steps: list[dict] = [_step()]  # the last is under way, or yet to come
        self._begun: float | None = None  # of the step that is under way

    def training_step(self, *args, **kwargs):
        if self._begun is None:
            self._begun = speed.now()
        return super().training_step(*args, **kwargs)

    def log(self, logs, start_time=None):
        if self._begun is not None:  # not the summary at the end
            step = self.steps[-1]
            whole, self._begun = speed.now() - self._begun, None
            step["training"] = whole - step["generation"] - step["rewards"]
            for phase in PHASES:
                self._metrics["train"][f"seconds/{phase}"].append(step[phase])
            self.steps.append(_step())
        super().log(logs, start_time)

    def _generate(self, prompts):
        begun = speed.now()
        made = super()._generate(prompts)
        step, replies = self.steps[-1], made[1]
        step["generation"] += speed.now() - begun
        step["drawn"] += sum(map(len, replies))
        step["lengths"] += [len(p) + len(r) for p, r in zip(made[0], replies, strict=True)]
        return made

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        begun = speed.now()
        columns = super()._calculate_rewards(inputs, prompts, completions, completion_ids_list)
        self.steps[-1]["rewards"] += speed.now() - begun
        self._scored = columns, completion_ids_list  # (world x B, 6), gathered, in group order
        # TRL leaves out as unscorable only what is NaN in every column.
        return columns.masked_fill(columns[:, :1].isnan(), torch.nan)

    def _generate_and_score_completions(self, inputs):
        out = super()._generate_and_score_completions(inputs)
        columns, ids = self._scored
        reward, accuracy, _, think_on, agrees, ended = columns.unbind(1)
        group_size = self.num_generations if self.model.training else self.num_generations_eval
        group = Rollouts(reward, think_on, agrees, ended == 0, group_size)
        found, lost = estimate(group, self.args), fine(group, self.args)
        rank, size = self.accelerator.process_index, len(inputs)
        mine = slice(rank * size, (rank + 1) * size)
        parsed = [template.parse(one, self.tags) for one in ids]
        length = out["completion_ids"].shape[1]
        weight = self.args.judge_weight
        tokens = spread(found[mine], lost[mine], parsed, length, weight)  # (B, T)
        out["advantages"] = tokens.to(out["advantages"].dtype)
        if not agrees.isnan().all():
            kind = "train" if self.model.training else "eval"
            self._metrics[kind]["judge_agreement"].append(agrees.nanmean().item())
        judge, answer = found.unbind(1) if found.dim() == 2 else (found, found)
        figures = torch.stack([accuracy, reward, judge - lost, answer], dim=1)[mine].tolist()
        self._write_rollouts(inputs, ids, parsed, figures)
        return out

    def _write_rollouts(self, inputs, ids, parsed, figures) -> None:
        """Append this rank's rollouts: query, mode, verdict and why, advantages, parts, text."""
        tok = self.processing_class
        texts = tok.batch_decode(ids)
        lines = ""
        for row, text, tokens, one, reason, (right, reward, judge, answer) in zip(
            inputs, texts, ids, parsed, self.reasons, figures, strict=True
        ):
            record = {
                "step": self.state.global_step,
                **{key: row[key] for key in ("id", "category", "difficulty")},
                "mode": one.mode,
                "problem": one.problem,
                "correct": None if right != right else bool(right),
                "reason": reason,
                "reward": None if reward != reward else reward,
                "tokens": one.length,
                "advantage_judge": round(judge, 4),
                "advantage_answer": round(answer, 4),
                **samples.parts(tok, tokens, one),
                "completion": text,
            }
            lines += json.dumps(record) + "\n"
        with self.rollouts.open("a", encoding="utf-8") as file:
            file.write(lines)  # one write: ranks append to the same file
