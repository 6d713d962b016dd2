"""Chooses and carries out the route of a chat request: one response, a vote, the best of several.

The router (`reasoning.router`) chooses for the model `auto`; the client's `reasoning_effort` and
`thinking_token_budget` go before it (`reasoning.effort`).
"""

import collections
import dataclasses
import math
from collections.abc import Sequence
from typing import Any

from reasoning.effort import Limits, decide, split_limit
from reasoning.mathematics.answers import extract_answer
from reasoning.router.route import VERIFIER_SEARCH, VOTE, Decision, Route, Router
from reasoning.serving.batch.response import Writing
from reasoning.serving.models import AUTO, CHEAP, REASONER, Checkpoint
from reasoning.serving.requests import ChatRequest


@dataclasses.dataclass(frozen=True)
class Choice:
    """How a request will be answered.

    Attributes:
      checkpoint: the model.
      thinking: whether it writes a chain; None leaves it to the model.
      chain: the most tokens of the chain.
      samples: responses to draw; one of them is given.
      decision: the route and the reason.
    """

    checkpoint: Checkpoint
    thinking: bool | None
    chain: int
    samples: int
    decision: Decision


class Models:
    """The models that a server offers.

    Args:
      reasoner: the checkpoint of `reasoner`, and of its own name.
      cheap: the checkpoint of `cheap`; the same one answers without a chain.
      router: chooses for `auto`, in any thread.
      samples: responses of a vote at high effort.
    """

    def __init__(
        self,
        reasoner: Checkpoint,
        cheap: Checkpoint | None,
        router: Router,
        samples: int = 8,
    ):
        self.reasoner, self.cheap, self._router = reasoner, cheap or reasoner, router
        self._samples = samples

    @property
    def checkpoints(self) -> list[Checkpoint]:
        """All loaded checkpoints."""
        return [self.reasoner] if self.cheap is self.reasoner else [self.reasoner, self.cheap]

    @property
    def names(self) -> list[str]:
        """All names that a client may give."""
        return list(
            dict.fromkeys([AUTO, REASONER, CHEAP, *(each.name for each in self.checkpoints)])
        )

    def checkpoint(self, name: str) -> Checkpoint:
        """Returns the checkpoint behind a name; raises `KeyError` if it is unknown."""
        found = {each.name: each for each in self.checkpoints}
        return (found | {AUTO: self.reasoner, REASONER: self.reasoner, CHEAP: self.cheap})[name]

    def choose(self, request: ChatRequest, limit: int) -> Choice:
        """Chooses how to answer a request.

        Args:
          limit: the most tokens of a response.

        Raises:
          KeyError: the model is unknown.
        """
        checkpoint = self.checkpoint(request.model)
        chain, _ = split_limit(limit)
        asked = (request.chat_template_kwargs or {}).get("enable_thinking")
        effort, budget = request.reasoning_effort, request.thinking_token_budget
        if request.model == CHEAP or asked is False:
            effort = effort or "none"
        limits = Limits(chain, samples=self._samples)
        if request.model == AUTO and asked is not True:
            query = next((m for m in reversed(request.messages) if m.role == "user"), None)
            text = query.plain["content"] if query else ""
            decision = decide(text, self._router, limits, effort, budget)
        elif effort is None and budget is None and request.model not in (REASONER, AUTO):
            # The checkpoint as it is, under its own name.
            route = Route("long_chain", max(1, chain))
            decision = Decision(route, f"the model {checkpoint.name} as it is", {}, {})
            return Choice(checkpoint, asked, chain, 1, decision)
        else:
            decision = decide("", None, limits, effort, budget)
        route = decision.route
        if not route.thinking and request.model == AUTO:
            checkpoint = self.cheap
        samples = route.samples if route.kind in (VOTE, VERIFIER_SEARCH) else 1
        samples = 1 if (request.n or 1) > 1 else samples
        return Choice(checkpoint, route.thinking, min(chain, route.budget), samples, decision)


def elect(writings: Sequence[Writing], kind: str) -> tuple[int, list[dict[str, Any]]]:
    """Chooses one of several finished responses.

    A vote takes the most frequent answer. The other search weighs each answer by the likelihood
    that the model gave to its responses (arXiv:2203.11171, "weighted").

    Returns:
      The index of the chosen response, and for each response its answer, score, tokens and whether
      it was chosen.
    """
    answers = [_short(writing.answer) for writing in writings]
    scores = [writing.logprob / max(1, writing.tokens) for writing in writings]
    weights: dict[str, float] = collections.defaultdict(float)
    for answer, score in zip(answers, scores):
        weights[answer] += 1.0 if kind == VOTE else math.exp(score)
    winner = max(weights, key=lambda answer: weights[answer])
    best = max((i for i, answer in enumerate(answers) if answer == winner), key=lambda i: scores[i])
    about = [
        {
            "answer": answer, "score": round(score, 4), "tokens": writing.tokens,
            "reasoning_tokens": writing.reasoning_tokens, "chosen": i == best,
        }
        for i, (answer, score, writing) in enumerate(zip(answers, scores, writings))
    ]  # fmt: skip
    return best, about


def _short(text: str) -> str:
    """Returns the answer that a response comes to, for comparison with others."""
    return extract_answer(text) or " ".join(text.split())[:200]
