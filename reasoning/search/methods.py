"""The table of search methods: each by the name that it has in reports.

To add a method, write a module beside this one and add it to `method_entries`.
"""

from collections.abc import Sequence

from reasoning.prompts import PromptTemplate
from reasoning.response import THINK_OPEN
from reasoning.search.beam import BeamSearch
from reasoning.search.best_of_n import BestOfN
from reasoning.search.budget_forcing import CLOSING, BudgetForcing
from reasoning.search.common.evaluation import Entry
from reasoning.search.dvts import DiverseTreeSearch
from reasoning.search.lookahead import LookaheadSearch
from reasoning.search.mcts import TreeSearch
from reasoning.search.prompting import Prompting
from reasoning.search.self_consistency import SelfConsistency
from reasoning.search.self_refine import SelfRefine
from reasoning.verifiers import Verifier
from reasoning.verifiers.likelihood import MeanLogprob

# An empty chain put into the model's mouth: the answer alone (arXiv:2504.09858, "NoThinking").
EMPTY_CHAIN = f" {THINK_OPEN}\n{CLOSING}"
# The bound of every choice among samples; no method.
ORACLE = "oracle"
# Methods that take one response whatever the budget.
ONE_RESPONSE = ("direct", "cot")
# Arms of the adaptive strategy, by method; budgets are those that fit.
EXTENDS_PILOTS = ("weighted_majority", "best_of_n_prm", "best_of_n_orm")
ADAPTIVE_ARMS = ("cot", *EXTENDS_PILOTS, "beam", "dvts")


def method_entries(
    prm: Verifier | None,
    orm: Verifier | None,
    *,
    certainty: Verifier,
    oracle: Verifier,
    plain: PromptTemplate,
    aggregation: str,
    wait: str,
) -> dict[str, Entry]:
    """Every method but the adaptive one, by the name that it has in reports.

    Args:
      prm, orm: process and outcome reward models; methods of one that is None are left out.
      plain: the bare user turn, which `direct` answers without a chain.
      aggregation: how the step scores of `prm` become one.
      wait: what budget forcing goes on with.
    """
    entries = {
        "direct": Entry(Prompting(plain, EMPTY_CHAIN)),
        "cot": Entry(Prompting()),
        "majority": Entry(SelfConsistency()),
        "best_of_n_logprob": Entry(BestOfN(), MeanLogprob()),
        "best_of_n_certainty": Entry(BestOfN(), certainty),
        ORACLE: Entry(BestOfN(), oracle),
    }
    if orm is not None:
        entries["best_of_n_orm"] = Entry(BestOfN(), orm)
    if prm is not None:
        entries |= {
            "best_of_n_prm": Entry(BestOfN(aggregation), prm),
            "weighted_majority": Entry(SelfConsistency("score", aggregation), prm),
            "ranked_majority": Entry(SelfConsistency("rank", aggregation), prm),
            "beam": Entry(BeamSearch(aggregation=aggregation), prm),
            "dvts": Entry(DiverseTreeSearch(aggregation=aggregation), prm),
            "lookahead": Entry(LookaheadSearch(aggregation=aggregation), prm),
            "self_refine": Entry(SelfRefine(aggregation=aggregation), prm),
        }
    entries["budget_forcing"] = Entry(BudgetForcing(wait))
    if prm is not None:
        entries["mcts"] = Entry(TreeSearch(aggregation=aggregation), prm)
    return entries


def adaptive_budgets(
    budgets: Sequence[int], tree_arms: Sequence[int]
) -> dict[str, Sequence[int]]:
    """Which arms of the adaptive strategy are calibrated, and at which budgets.

    Args:
      tree_arms: budgets of the searches over steps, which cost most to calibrate.
    """
    parallel = {name: list(budgets) for name in EXTENDS_PILOTS}
    return {"cot": [1], **parallel, "beam": list(tree_arms), "dvts": list(tree_arms)}
