"""Sequential revision: the best response so far is revised, and the revision kept if it is better.

Self-Refine (arXiv:2303.17651) with a verifier in place of the model's own feedback, as in the
sequential revisions of arXiv:2408.03314, section 6.
"""

import dataclasses
from collections.abc import Sequence

import numpy as np

from reasoning.generation.generator import Completion, fold_seed
from reasoning.generation.step_splitter import StepSplitter
from reasoning.problem import Problem
from reasoning.search import interface
from reasoning.search.budget_forcing import close_chains
from reasoning.search.interface import Policy, SearchResult
from reasoning.verifiers import Verifier, aggregate


@dataclasses.dataclass(frozen=True)
class SelfRefine:
    """A response and `budget` - 1 revisions of it, each accepted if its score is higher.

    Attributes:
      instruction: asks for a revision of the response that precedes it. Where it is empty, the
        response is resumed from before its weakest step instead, which any model can do.
      aggregation: how step scores become a response's.
    """

    instruction: str = ""
    aggregation: str = "last"

    def __call__(
        self,
        policy: Policy,
        verifier: Verifier | None,
        problems: Sequence[Problem],
        budget: int,
        *,
        seed: int = 0,
    ) -> list[SearchResult]:
        """See `SearchMethod`."""
        interface.check_budget(budget, "self_refine")
        verifier = interface.require_verifier(verifier, "self_refine")
        if not self.instruction and not hasattr(policy.generator, "tokenizer"):
            raise ValueError(
                "self_refine resumes a response at a token, and this generator shows none: give an"
                " instruction that asks for a revision"
            )
        prompts = [policy.template(problem.question) for problem in problems]
        lengths = interface.prompt_lengths(policy, prompts)
        meters = interface.meters(policy, verifier, lengths)
        drafts = [""] * len(problems)
        best: list[tuple[float, Completion, np.ndarray] | None] = [None] * len(problems)
        splitter = None
        if not self.instruction:
            splitter = StepSplitter(policy.generator.tokenizer, policy.delimiter)
        for turn in range(budget):
            texts = [prompt + draft for prompt, draft in zip(prompts, drafts, strict=True)]
            if turn:
                for meter, length in zip(meters, interface.prompt_lengths(policy, texts)):
                    meter.prefill(length)
            drawn_by = fold_seed(seed, "revise", turn)
            groups = interface.sample(policy, texts, 1, meters, seed=drawn_by)
            kept = drafts if not self.instruction else [""] * len(problems)
            revised = [
                self._whole(policy, draft, group[0]) for draft, group in zip(kept, groups)
            ]
            revised = close_chains(policy, prompts, [[each] for each in revised], meters)
            scores = verifier.score(problems, prompts, revised)
            for i, ((completion,), (steps,)) in enumerate(zip(revised, scores, strict=True)):
                meters[i].verify(lengths[i] + len(completion.token_ids), 0)
                score = aggregate(steps, self.aggregation)
                if best[i] is None or score > best[i][0]:
                    best[i] = (score, completion, steps)
            drafts = [self._draft(policy, splitter, *each[1:]) for each in best]
        chosen = [interface.candidate(policy, completion, score) for score, completion, _ in best]
        spent = [meter.spent for meter in meters]
        return interface.results(problems, chosen, [[each] for each in chosen], spent)

    def _draft(
        self, policy, splitter: StepSplitter | None, completion: Completion, steps: np.ndarray
    ) -> str:
        """What a revision follows: all of the response and the request, or its sound part."""
        if self.instruction:
            return f"{completion.text}\n{self.instruction}\n"
        weakest = int(np.argmin(steps))
        if not weakest:
            return ""
        ends = splitter.ends(completion.token_ids)
        return policy.generator.tokenizer.decode(completion.token_ids[: ends[weakest - 1] + 1])

    def _whole(self, policy, draft: str, completion: Completion) -> Completion:
        """The revision with what it resumes."""
        if not draft:
            return completion
        ids = policy.generator.tokenizer.encode(draft)
        return dataclasses.replace(
            completion,
            text=draft + completion.text,
            token_ids=[*ids, *completion.token_ids],
            logprobs=None,
        )
