"""Sequential revision: revise the best response so far, and keep the revision if it is better.

This is Self-Refine (arXiv:2303.17651) with a verifier in place of the model's own feedback, as in
the sequential revisions of arXiv:2408.03314, section 6.
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
    """Samples a response and `budget` - 1 revisions; accepts a revision if its score is higher.

    Attributes:
      instruction: text that asks the model to revise the response before it. If it is empty, the
        model instead continues the response from just before its weakest step, which any model can
        do.
      aggregation: how step scores are combined; see `reasoning.verifiers.aggregate`.
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
        """Answers each problem; see `SearchMethod`."""
        interface.check_budget(budget, "self_refine")
        verifier = interface.require_verifier(verifier, "self_refine")
        if not self.instruction and not hasattr(policy.generator, "tokenizer"):
            raise ValueError(
                "self_refine resumes a response at a token, but this generator has no tokenizer:"
                " set `instruction` to a text that asks for a revision"
            )
        prompts = [policy.template(problem.question) for problem in problems]
        lengths = interface.prompt_lengths(policy, prompts)
        meters = interface.meters(policy, verifier, lengths)
        drafts = [""] * len(problems)
        best: list[tuple[float, Completion, np.ndarray]] = []
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
            revised = [self._whole(policy, draft, group[0]) for draft, group in zip(kept, groups)]
            revised = close_chains(policy, prompts, [[each] for each in revised], meters)
            scores = verifier.score(problems, prompts, revised)
            for i, ((completion,), (steps,)) in enumerate(zip(revised, scores, strict=True)):
                meters[i].verify(lengths[i] + len(completion.token_ids), 0)
                score = aggregate(steps, self.aggregation)
                if not turn:
                    best.append((score, completion, steps))
                elif score > best[i][0]:
                    best[i] = (score, completion, steps)
            drafts = [
                self._draft(policy, splitter, completion, steps) for _, completion, steps in best
            ]
        chosen = [interface.candidate(policy, completion, score) for score, completion, _ in best]
        spent = [meter.spent for meter in meters]
        return interface.results(problems, chosen, [[each] for each in chosen], spent)

    def _draft(
        self,
        policy: Policy,
        splitter: StepSplitter | None,
        completion: Completion,
        steps: np.ndarray,
    ) -> str:
        """Returns the text between the prompt and a revision.

        Without a splitter, that is the whole response and the instruction; with one, it is the part
        of the response before its weakest step.
        """
        if splitter is None:
            return f"{completion.text}\n{self.instruction}\n"
        weakest = int(np.argmin(steps))
        if not weakest:
            return ""
        ends = splitter.ends(completion.token_ids)
        return policy.generator.tokenizer.decode(completion.token_ids[: ends[weakest - 1] + 1])

    def _whole(self, policy: Policy, draft: str, completion: Completion) -> Completion:
        """Returns a revision together with the draft that it continues."""
        if not draft:
            return completion
        ids = policy.generator.tokenizer.encode(draft)
        return dataclasses.replace(
            completion,
            text=draft + completion.text,
            token_ids=[*ids, *completion.token_ids],
            logprobs=None,
        )
