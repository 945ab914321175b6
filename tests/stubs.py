"""Step-SRPO with completions that do not depend on which rank samples: python stubs.py FOLDER."""

import sys

from katlab.lab import StageRun
from katlab.step_srpo import stage, trainer


def parity(_tokenizer, _settings, _names_mode, reasons: list) -> list:
    """Reward functions of tokens' parity: the first token earns, the last says think-on."""

    def column(name: str, value):
        def read(completion_ids, **_):
            reasons[:] = ["parity"] * len(completion_ids)
            return [float(value(ids)) for ids in completion_ids]

        read.__name__ = name
        return read

    return [
        column("reward", lambda ids: ids[0] % 2),
        column("accuracy", lambda ids: ids[0] % 2),
        column("well_formed", lambda ids: 1),
        column("think_on", lambda ids: ids[-1] % 2),
        column("judge_agrees", lambda ids: ids[1] % 2),
        column("ended", lambda ids: 1),
    ]


def fixed(self, prompt_ids, *_) -> tuple[list[list[int]], None]:
    """Completions by their place in the whole batch of all ranks."""
    first = self.accelerator.process_index * len(prompt_ids)
    places = range(first, first + len(prompt_ids))
    return [[10 + (31 * i + 7 * k) % 90 for k in range(4 + i % 3)] for i in places], None


def main() -> None:
    kept = trainer.reward_functions, trainer.StepSRPOTrainer._generate_single_turn
    trainer.reward_functions, trainer.StepSRPOTrainer._generate_single_turn = parity, fixed
    try:
        stage.run(StageRun.open(sys.argv[1]))
    finally:
        trainer.reward_functions, trainer.StepSRPOTrainer._generate_single_turn = kept


if __name__ == "__main__":
    main()
