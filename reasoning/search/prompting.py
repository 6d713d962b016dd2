"""Prompting: one greedy response, either direct or with a chain of thought.

It is the baseline of all other search methods.
"""

import dataclasses
from collections.abc import Sequence

from models.decoding.sampling import SamplingParams
from reasoning.problem import Problem
from reasoning.prompts import PromptTemplate
from reasoning.search import interface
from reasoning.search.budget_forcing import close_chains
from reasoning.search.interface import Policy, SearchResult
from reasoning.verifiers import Verifier


@dataclasses.dataclass(frozen=True)
class Prompting:
    """Answers with the greedy response to a prompt; it takes one response whatever the budget.

    Attributes:
      template: replaces the policy's template; None keeps it.
      prefill: text that starts the response, such as an empty chain of thought.
    """

    template: PromptTemplate | None = None
    prefill: str = ""

    def __call__(
        self,
        policy: Policy,
        verifier: Verifier | None,
        problems: Sequence[Problem],
        budget: int,
        *,
        seed: int = 0,
    ) -> list[SearchResult]:
        """Answers each problem; see `SearchMethod`. Needs no verifier."""
        del verifier
        interface.check_budget(budget, "prompting")
        bare = self.template or policy.template
        policy = dataclasses.replace(
            policy, template=lambda question: bare(question) + self.prefill
        )
        prompts = [policy.template(problem.question) for problem in problems]
        meters = interface.meters(policy, None, interface.prompt_lengths(policy, prompts))
        greedy = SamplingParams(temperature=0.0)
        completions = interface.sample(policy, prompts, 1, meters, seed=seed, sampling=greedy)
        completions = close_chains(policy, prompts, completions, meters)
        chosen = [interface.candidate(policy, completion) for (completion,) in completions]
        spent = [meter.spent for meter in meters]
        return interface.results(problems, chosen, [[each] for each in chosen], spent)
