"""A house with three dials and tools that are really executed: the agent's world.

Report section 6.3 lets an agent inspect and edit a code base; a model of a million parameters turns
dials. Requests and calls have the form of the nano world's tool-use queries (`tasks.nano.world`).

    house = House({"heat": 7});  house.execute('<tool_call>...</tool_call>')  # {"heat": 9}
    errand = errands(1, seed=0)[0];  errand.task(0)  # ("The fan is at 4. Set it to 4+7.", [tool])
"""

import random
from dataclasses import dataclass

from katlab.rewards.tool_call import parse_calls
from katlab.tasks.nano import arithmetic

DIALS = ("heat", "light", "fan")
LOWEST, HIGHEST = 0, arithmetic.HIGHEST
CHANGES = (1, 3, 1, 2)  # asked for at each step of an errand: easy, hard, easy, hard


@dataclass
class House:
    """Dials from LOWEST to HIGHEST and the tools that set them."""

    levels: dict[str, int]

    def tool(self, dial: str) -> dict:
        """The JSON schema of a dial's tool, as the tool-use queries have it."""
        level = {"type": "object", "properties": {"level": {"type": "integer"}}}
        return {"name": f"set_{dial}", "parameters": level}

    def request(self, rng: random.Random, dial: str, changes: int) -> tuple[str, int]:
        """A request that starts from the dial's level now, and the level it asks for."""
        at = self.levels[dial]
        wanted, asked = at, ""
        for _ in range(changes):
            sizes = range(11, HIGHEST) if changes > 1 else range(1, 10)
            change = arithmetic.change(rng, wanted, sizes, carry=None)
            wanted, asked = wanted + change, f"{asked}{change:+d}"
        return f"The {dial} is at {at}. Set it to {at}{asked}.", wanted

    def call(self, name: str, arguments: dict) -> dict:
        """The tool's result: the new level of the dial, or an error that the agent can read."""
        dial, level = name.removeprefix("set_"), arguments.get("level")
        if name != f"set_{dial}" or dial not in self.levels:
            return {"error": f"no tool {name}"}
        if set(arguments) != {"level"} or type(level) is not int or not LOWEST <= level <= HIGHEST:
            return {"error": f"level must be a whole number from {LOWEST} to {HIGHEST}"}
        self.levels[dial] = level
        return {dial: level}

    def execute(self, answer: str) -> dict:
        """Execute the one tool call in an answer; an answer without one gets an error."""
        try:
            calls = parse_calls(answer)
        except (ValueError, RecursionError) as fault:
            return {"error": str(fault)}
        if len(calls) != 1:
            return {"error": f"{len(calls)} tool calls where one is right"}
        return self.call(calls[0]["name"], calls[0]["arguments"])


@dataclass
class Errand:
    """An agent's own house, and what it is asked at each of four steps: to turn its dial."""

    house: House
    dial: str
    rng: random.Random
    wanted: int = 0
    steps = tuple(f"{n} change{'s' * (n > 1)}" for n in CHANGES)

    def task(self, step: int) -> tuple[str, list[dict]]:
        """The request of a step (from 0), from where the dial stands now, and the dial's tool."""
        request, self.wanted = self.house.request(self.rng, self.dial, CHANGES[step])
        return request, [self.house.tool(self.dial)]

    def execute(self, step: int, answer: str) -> tuple[dict, bool]:
        """The tool's result, and whether the dial came to stand where the step wanted it."""
        result = self.house.execute(answer)
        return result, result == {self.dial: self.wanted}


def errands(n: int, seed: int) -> list[Errand]:
    """`n` agents' houses, their dials anywhere between 2 and 20."""
    rng = random.Random(seed)
    dials = [rng.choice(DIALS) for _ in range(n)]
    houses = [House({dial: rng.randint(2, 20) for dial in DIALS}) for _ in range(n)]
    return [Errand(house, dial, rng) for house, dial in zip(houses, dials, strict=True)]
