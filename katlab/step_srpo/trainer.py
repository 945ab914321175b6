"""Step-SRPO on TRL's GRPOTrainer (report section 4.2).

`StepSRPOTrainer` overrides two methods: the rewards, already gathered over ranks, are kept, and the
(B,) advantages are replaced by (B, T) ones built from the judge's and the answer's token spans
(`katlab.step_srpo.advantages` has the formulas and our deviations). The loss is TRL's.
"""

import json
from pathlib import Path

import torch
from transformers import PreTrainedTokenizerBase
from trl import GRPOTrainer

from katlab import template
from katlab.rewards import grade
from katlab.step_srpo.advantages.hipo import advantages, combine, spread


class StepSRPOTrainer(GRPOTrainer):
    """GRPO with segment advantages; `settings` has omega, gamma, std_floor, judge_weight and
    format_mode. Its reward functions must be those of `rewards_for`, in their order."""

    def __init__(self, *args, settings, rollouts: Path, **kwargs):
        super().__init__(*args, **kwargs)
        self.settings, self.rollouts = settings, rollouts
        self.tags = template.Tags.of(self.processing_class)

    def _calculate_rewards(self, inputs, prompts, completions, completion_ids_list):
        self._columns = super()._calculate_rewards(
            inputs, prompts, completions, completion_ids_list
        )  # (world x B, 3), gathered, in group order
        return self._columns

    def _generate_and_score_completions(self, inputs):
        out = super()._generate_and_score_completions(inputs)
        accuracy, form, think_on = self._columns.unbind(1)
        s = self.settings
        judge, answer = advantages(
            combine(accuracy, form, s.format_mode),
            think_on,
            self.num_generations if self.model.training else self.num_generations_eval,
            s.omega,
            s.gamma,
            s.std_floor,
        )
        rank, size = self.accelerator.process_index, len(inputs)
        mine = slice(rank * size, (rank + 1) * size)
        ids, mask = out["completion_ids"], out["completion_mask"].bool()
        rows = [row[keep].tolist() for row, keep in zip(ids, mask, strict=True)]
        parsed = [template.parse(row, self.tags) for row in rows]
        out["advantages"] = spread(
            judge[mine], answer[mine], parsed, ids.shape[1], s.judge_weight
        ).to(out["advantages"].dtype)
        columns = torch.stack([accuracy, judge, answer], dim=1)[mine].tolist()
        self._write_rollouts(inputs, rows, parsed, columns)
        return out

    def _write_rollouts(self, inputs, rows, parsed, columns) -> None:
        """Append this rank's rollouts: the query, the mode, the verdict, both advantages."""
        texts = self.processing_class.batch_decode(rows)
        lines = []
        for row, text, one, (right, judge, answer) in zip(
            inputs, texts, parsed, columns, strict=True
        ):
            record = {
                "step": self.state.global_step,
                **{key: row[key] for key in ("id", "category", "difficulty")},
                "mode": one.mode,
                "problem": one.problem,
                "correct": None if right != right else bool(right),
                "tokens": one.length,
                "advantage_judge": round(judge, 4),
                "advantage_answer": round(answer, 4),
                "completion": text,
            }
            lines.append(json.dumps(record) + "\n")
        with self.rollouts.open("a", encoding="utf-8") as file:
            file.write("".join(lines))  # one write: ranks append to the same file


def rewards_for(tokenizer: PreTrainedTokenizerBase) -> list:
    """The three columns StepSRPOTrainer reads: accuracy, well-formedness, and the mode chosen.

    The mode is no reward (its weight is 0); as a column it is gathered over ranks with the others.
    """
    tags = template.Tags.of(tokenizer)

    def accuracy(completion_ids, verifier, reference, difficulty, log_metric, **_):
        parsed = [template.parse(ids, tags) for ids in completion_ids]
        spans = [one.answer or (0, 0) for one in parsed]
        answers = [
            tokenizer.decode(ids[start:end]).strip()
            for ids, (start, end) in zip(completion_ids, spans, strict=True)
        ]
        rows = zip(verifier, answers, map(json.loads, reference), strict=True)
        verdicts = [verdict.correct for verdict in grade(rows)]
        for level in (1, 2, 3, 4, 5):
            here = [one for one, d in zip(parsed, difficulty, strict=True) if d == level]
            if here:
                log_metric(f"think_on/level_{level}", sum(p.mode == "on" for p in here) / len(here))
        return [None if correct is None else float(correct) for correct in verdicts]

    def well_formed(completion_ids, **_):
        return [float(template.parse(ids, tags).problem is None) for ids in completion_ids]

    def think_on(completion_ids, **_):
        modes = [template.parse(ids, tags).mode for ids in completion_ids]
        return [None if mode is None else float(mode == "on") for mode in modes]

    return [accuracy, well_formed, think_on]
