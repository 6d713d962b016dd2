"""The schema of a router: `launch.run_router`."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from launch.schema.fields import Recipe, Setting
from launch.schema.sections import (
    SamplerRows,
    Seed,
    Temperature,
    check_checkpoint,
    check_task,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class RouterConfig(Recipe):
    """A config of `launch.run_router`."""

    entry_point = "launch.run_router"
    example = "configs/router.py"

    seed: Seed
    model: Annotated[str, Setting("whose routes are run: a folder, hf://, gguf:, pip:", empty=True)]
    template: Annotated[str, Setting("of prompts; auto is the model's own")]
    tasks: Annotated[tuple[str, ...], Setting("whose training problems are asked")]
    problems: Annotated[int, Setting("of each task at most", unit="problems", least=1)]
    outcomes: Annotated[str, Setting("or a JSONL file of outcomes that you have", empty=True)]
    costs: Annotated[
        tuple[str, ...],
        Setting("NAME=COST of routes for which the file has no tokens", empty=True),
    ]
    routes: Annotated[
        tuple[str, ...],
        Setting("to choose from, such as vote@128x8; of a file of outcomes, names in it"),
    ]
    budget: Annotated[
        int,
        Setting("chain of a route of the file that is the name of a model", unit="tokens", least=1),
    ]
    verifier: Annotated[
        str, Setting("folder of a process verifier, for verifier_search", empty=True)
    ]
    named_budgets: Annotated[
        bool, Setting("questions name the budget of their route, for models trained to keep it")
    ]
    temperature: Temperature
    rows: SamplerRows
    kinds: Annotated[
        tuple[str, ...], Setting("of routers that are compared", choices="reasoning.router:KINDS")
    ]
    folds: Annotated[int, Setting("of the cross-validation", least=2)]
    held_out: Annotated[float, Setting("share of the questions to calibrate on", above=0, below=1)]
    promise: Annotated[
        str, Setting("cost=TOKENS, quality=SHARE or loss=SHARE@CONFIDENCE; '' is none", empty=True)
    ]

    def check(self) -> Iterator[tuple[str, str]]:
        """Yields (field, fault) for what is wrong with several fields together."""
        from reasoning.router.route import VERIFIER_SEARCH, Promise, Route

        if bool(self.model) == bool(self.outcomes):
            yield "model", "give one of model=MODEL and outcomes=FILE"
        if self.outcomes and not Path(self.outcomes).expanduser().is_file():
            yield "outcomes", "no such file"
        if self.promise:
            try:
                Promise.parse(self.promise)
            except ValueError as error:
                yield "promise", str(error)
        if len(set(self.routes)) < max(2, len(self.routes)):
            yield "routes", "give at least two different ones"
        if "hidden" in self.kinds and not self.model:
            yield "kinds", "hidden reads the states of a model: set model, or leave hidden out"
        yield from check_checkpoint("model", self.model)
        try:
            self.cost_of()
        except ValueError as error:
            yield "costs", str(error)
        if self.outcomes:
            return
        for spec in self.tasks:
            yield from check_task("tasks", spec)
        for text in self.routes:
            try:
                route = Route.parse(text)
            except ValueError as error:
                yield "routes", str(error)
                continue
            if route.model:
                yield "routes", f"{text} names a model, but config.model runs them all"
            if route.kind == VERIFIER_SEARCH and not self.verifier:
                yield "verifier", f"route {text} needs a trained process verifier"

    def cost_of(self) -> dict[str, float]:
        """Returns the cost of each named route.

        Raises:
          ValueError: an item is not of the form NAME=COST.
        """
        found = {}
        for item in self.costs:
            name, _, cost = item.rpartition("=")
            try:
                found[name] = float(cost)
            except ValueError:
                found[name] = -1.0
            if not name or not 0 <= found[name] < 1e12:
                raise ValueError(f"{item!r} must be NAME=COST, the cost at least 0")
        return found
