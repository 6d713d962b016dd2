"""One dial for thinking: `reasoning_effort` and `thinking_token_budget` become a route.

A client names an effort, as OpenAI's interface does, or the tokens that a chain of thought may
have. The chain is closed when its budget is used up, and the answer has tokens of its own
(`reasoning.router.route.ANSWER_TOKENS`), so a long chain never leaves the answer out.
"""

import dataclasses

from reasoning.prompts import naming_budget
from reasoning.router.route import (
    ANSWER_TOKENS,
    LONG_CHAIN,
    SHORT_CHAIN,
    VOTE,
    Decision,
    Route,
    Router,
    direct,
)

NONE, MINIMAL, LOW, MEDIUM, HIGH = "none", "minimal", "low", "medium", "high"
EFFORTS = (NONE, MINIMAL, LOW, MEDIUM, HIGH)
# The share of the longest chain that each effort may use, and its samples.
_SHARES = {MINIMAL: 1 / 16, LOW: 1 / 4, MEDIUM: 1.0, HIGH: 1.0}
HIGH_SAMPLES = 8


@dataclasses.dataclass(frozen=True)
class Limits:
    """The most that one request may use.

    Attributes:
      chain: most tokens of a chain of thought, such as the room that the context leaves.
      model: name of the model, for the routes.
      samples: samples of a vote at high effort; 1 for no vote.
    """

    chain: int
    model: str = ""
    samples: int = HIGH_SAMPLES


def route_for(
    limits: Limits, effort: str | None = None, thinking_token_budget: int | None = None
) -> Route:
    """Returns the route of an effort, of a budget, or of both.

    `none` answers directly; `minimal` and `low` write a short chain of at most 1/16 and 1/4 of
    `limits.chain`; `medium` a long chain; `high` a vote over `limits.samples` long chains. A budget
    bounds the chain of each sample; a budget of 0 answers directly. Without either, the effort is
    `medium`.

    Raises:
      ValueError: the effort is unknown, or the budget is negative.
    """
    effort = MEDIUM if effort is None else effort
    if effort not in EFFORTS:
        raise ValueError(f"reasoning_effort={effort!r} is unknown: choose one of {EFFORTS}")
    budget = thinking_token_budget
    if budget is not None and (isinstance(budget, bool) or budget < 0):
        raise ValueError(f"thinking_token_budget={budget} must be a whole number, at least 0")
    if effort == NONE or budget == 0 or limits.chain < 1:
        return direct(limits.model)
    chain = max(1, int(limits.chain * _SHARES[effort]))
    chain = chain if budget is None else min(chain, budget)
    if effort == HIGH and limits.samples > 1:
        return Route(VOTE, chain, limits.samples, limits.model)
    kind = SHORT_CHAIN if effort in (MINIMAL, LOW) else LONG_CHAIN
    return Route(kind, chain, 1, limits.model)


def decide(
    query: str,
    router: Router | None,
    limits: Limits,
    effort: str | None = None,
    thinking_token_budget: int | None = None,
) -> Decision:
    """Chooses the route of a request: what the client says goes before what the router says.

    With an effort, the route is that of `route_for`. Without one the router chooses, and a budget
    bounds the chain of its route.
    """
    if effort is not None or router is None:
        route = route_for(limits, effort, thinking_token_budget)
        asked = f"reasoning_effort={effort}" if effort is not None else "no router"
        if thinking_token_budget is not None:
            asked += f", thinking_token_budget={thinking_token_budget}"
        return Decision(route, asked, {}, {})
    decision = router.choose(query)
    route = bounded(decision.route, limits.chain)
    if thinking_token_budget is not None:
        route_for(limits, None, thinking_token_budget)  # Refuses a negative budget.
        route = bounded(route, thinking_token_budget)
    if route == decision.route:
        return decision
    why = f"{decision.why}; the chain is bounded to {route.budget} tokens"
    return dataclasses.replace(decision, route=route, why=why)


def asked(question: str, route: Route) -> str:
    """Returns a question that tells its route, for a model that was trained to keep budgets.

    A direct route asks for no chain, a short one names its budget; others leave the length to the
    model. See `reasoning.tasks.budgets` for the training.
    """
    if not route.thinking:
        return naming_budget(question, 0)
    return naming_budget(question, route.budget) if route.kind == SHORT_CHAIN else question


def bounded(route: Route, chain: int) -> Route:
    """Returns the route with at most `chain` tokens of thinking; without any it is direct."""
    if not route.thinking or route.budget <= chain:
        return route
    if chain < 1:
        return direct(route.model)
    return dataclasses.replace(route, budget=chain)


def split_limit(limit: int, reserve: int = ANSWER_TOKENS) -> tuple[int, int]:
    """Divides a limit on all tokens into those of the chain and those kept for the answer.

    A small limit keeps at least half for the answer.

    Returns:
      `(chain, answer)`, which add up to `limit`.

    Raises:
      ValueError: the limit is below 1.
    """
    if limit < 1:
        raise ValueError(f"a limit of {limit} tokens leaves nothing for an answer: give at least 1")
    answer = min(reserve, (limit + 1) // 2)
    return limit - answer, answer
