"""One response, prompted one way or another: direct, or with a chain of thought."""

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
    """The greedy response to a prompt; whatever the budget, it takes one.

    Attributes:
      template: in place of the policy's.
      prefill: what the response starts with, such as the end of an empty chain.
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
        """See `SearchMethod`; needs no verifier."""
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
