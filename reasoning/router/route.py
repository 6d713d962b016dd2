"""What a router chooses between and what it returns: `Route`, `Promise`, `Decision`, `Router`."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any, Protocol

DIRECT, SHORT_CHAIN, LONG_CHAIN = "direct", "short_chain", "long_chain"
VOTE, VERIFIER_SEARCH = "vote", "verifier_search"
KINDS = (DIRECT, SHORT_CHAIN, LONG_CHAIN, VOTE, VERIFIER_SEARCH)
# [model:]kind[@budget][xsamples]
_NAME = re.compile(rf"(?:(.+):)?({'|'.join(KINDS)})(?:@(\d{{1,9}}))?(?:x(\d{{1,9}}))?")
# Tokens that every response keeps for its answer, beyond the budget of its chain.
ANSWER_TOKENS = 32

COST, QUALITY, LOSS = "cost", "quality", "loss"
PROMISES = (COST, QUALITY, LOSS)


@dataclasses.dataclass(frozen=True)
class Route:
    """A way to answer a query.

    Attributes:
      kind: one of `KINDS`. "direct" answers without a chain of thought, the two chains answer after
        one chain, "vote" takes the most frequent answer of several samples, and "verifier_search"
        lets a trained verifier choose among samples.
      budget: most tokens of the chain of each sample. The answer has `ANSWER_TOKENS` more.
      samples: most responses that are sampled.
      model: name of the model that answers; empty for the only one.
      thinking: whether the model writes a chain of thought.

    Raises:
      ValueError: the fields do not fit together.
    """

    kind: str
    budget: int = 0
    samples: int = 1
    model: str = ""
    thinking: bool = True

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"kind={self.kind!r} of a route is unknown: choose one of {KINDS}")
        if self.budget < 0 or (self.thinking and self.budget < 1):
            raise ValueError(
                f"budget={self.budget} of route {self.kind}: a chain needs at least 1 token"
            )
        if not self.thinking and self.budget:
            raise ValueError(
                f"budget={self.budget} of route {self.kind}: without thinking there is no chain;"
                " set it to 0"
            )
        if self.kind == DIRECT and self.thinking:
            raise ValueError("a direct route has no chain of thought: set thinking=False")
        if self.kind in (SHORT_CHAIN, LONG_CHAIN) and not self.thinking:
            raise ValueError(f"route {self.kind} is a chain of thought: set thinking=True")
        if self.kind in (VOTE, VERIFIER_SEARCH):
            if self.samples < 2:
                raise ValueError(f"samples={self.samples} of route {self.kind}: give at least 2")
        elif self.samples != 1:
            raise ValueError(f"samples={self.samples} of route {self.kind}: it takes one response")

    @property
    def limit(self) -> int:
        """Most tokens of one response: chain and answer."""
        return self.budget + ANSWER_TOKENS

    @property
    def name(self) -> str:
        """A short name such as `long_chain@96` or `reasoner:vote@96x8`."""
        text = f"{self.model}:{self.kind}" if self.model else self.kind
        if self.thinking:
            text += f"@{self.budget}"
        return f"{text}x{self.samples}" if self.samples > 1 else text

    @classmethod
    def parse(cls, text: str) -> "Route":
        """Parses a `name`.

        Raises:
          ValueError: the text is none.
        """
        found = _NAME.fullmatch(text.strip())
        if not found:
            raise ValueError(
                f"route {text!r}: write direct, short_chain@TOKENS, long_chain@TOKENS,"
                " vote@TOKENSxSAMPLES or verifier_search@TOKENSxSAMPLES, with MODEL: before it if"
                " there are several models"
            )
        model, kind, budget, samples = found.groups()
        return cls(kind, int(budget or 0), int(samples or 1), model or "", budget is not None)

    def as_dict(self) -> dict[str, Any]:
        """Returns the fields in a form that JSON can store; `Route(**fields)` reads it."""
        return dataclasses.asdict(self)


def direct(model: str = "") -> Route:
    """Returns the route that answers without a chain of thought."""
    return Route(DIRECT, 0, 1, model, thinking=False)


@dataclasses.dataclass(frozen=True)
class Promise:
    """What the user asks of a router; a calibrated router finds the price of a token for it.

    Attributes:
      kind: "cost": the mean cost of a query is at most `value`, in the unit of the outcomes
        (tokens). "quality": accuracy is at least `value`, from 0 to 1. "loss": at most `value`
        (0.02 is two points) of the reference route's accuracy is lost, with `confidence`.
      value: see `kind`.
      confidence: of a "loss" promise.

    Raises:
      ValueError: the kind is unknown, or a value is out of range.
    """

    kind: str
    value: float
    confidence: float = 0.95

    def __post_init__(self) -> None:
        if self.kind not in PROMISES:
            raise ValueError(f"promise kind={self.kind!r} is unknown: choose one of {PROMISES}")
        if not self.value >= 0 or (self.kind != COST and self.value > 1):
            allowed = "at least 0" if self.kind == COST else "from 0 to 1"
            raise ValueError(f"promise {self.kind}={self.value}: the value must be {allowed}")
        if not 0 < self.confidence < 1:
            raise ValueError(f"confidence={self.confidence} must be between 0 and 1")

    @classmethod
    def parse(cls, text: str) -> "Promise":
        """Parses `cost=200`, `quality=0.9`, `loss=0.02` or `loss=0.02@0.95`.

        Raises:
          ValueError: the text is none of these.
        """
        kind, _, rest = text.partition("=")
        value, _, confidence = rest.partition("@")
        try:
            numbers = [float(value), *([float(confidence)] if confidence else [])]
        except ValueError:
            raise ValueError(
                f"promise {text!r}: write cost=TOKENS, quality=SHARE or loss=SHARE@CONFIDENCE"
            ) from None
        return cls(kind.strip(), *numbers)


@dataclasses.dataclass(frozen=True)
class Decision:
    """The route that a router chose for a query, and why.

    Attributes:
      route: the chosen route.
      why: the reason in words, in one line.
      accuracy: route name -> predicted probability that its answer is right.
      cost: route name -> predicted cost, in the unit of the outcomes (tokens).
    """

    route: Route
    why: str
    accuracy: Mapping[str, float]
    cost: Mapping[str, float]


class Router(Protocol):
    """Anything that chooses a route for a query."""

    @property
    def routes(self) -> tuple[Route, ...]:
        """All routes that may be chosen."""
        ...

    def choose(self, query: str, promise: Promise | None = None) -> Decision:
        """Chooses a route from the text of the query alone.

        Args:
          query: the question, without a prompt template.
          promise: what to keep to; None for the promise that the router was made with.

        Raises:
          ValueError: the promise needs held-out outcomes, and the router has none.
        """
        ...
