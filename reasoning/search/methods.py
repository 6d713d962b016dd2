"""The table of search methods, under the names that reports use.

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
from reasoning.search.stopping import AdaptiveVote, ConfidentVote
from reasoning.verifiers import Verifier
from reasoning.verifiers.likelihood import MeanLogprob

# Start of a response with an empty chain, so that the model gives the answer alone
# (arXiv:2504.09858, "NoThinking").
EMPTY_CHAIN = f" {THINK_OPEN}\n{CLOSING}"
# Best-of-N with the reference answers: the upper bound of every choice among samples.
ORACLE = "oracle"
# Methods that take one response whatever the budget.
ONE_RESPONSE = ("direct", "cot")
# Methods that the adaptive strategy chooses from. The first group can reuse its pilot samples.
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
    """Returns every method except the adaptive one, keyed by its name in reports.

    Args:
      prm: process reward model; if None, the methods that need it are left out.
      orm: outcome reward model; if None, the methods that need it are left out.
      certainty: the verifier of `best_of_n_certainty`.
      oracle: a verifier that knows the reference answers.
      plain: template of the bare user turn, which `direct` answers without a chain of thought.
      aggregation: how the step scores of `prm` are combined; see `reasoning.verifiers.aggregate`.
      wait: the word with which budget forcing continues a chain.
    """
    entries = {
        "direct": Entry(Prompting(plain, EMPTY_CHAIN)),
        "cot": Entry(Prompting()),
        "majority": Entry(SelfConsistency()),
        "adaptive_majority": Entry(AdaptiveVote()),
        "confident_majority": Entry(ConfidentVote()),
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
    entries["budget_forcing_vote"] = Entry(BudgetForcing(wait, vote=True))
    if prm is not None:
        entries["mcts"] = Entry(TreeSearch(aggregation=aggregation), prm)
    return entries


def adaptive_budgets(budgets: Sequence[int], tree_arms: Sequence[int]) -> dict[str, Sequence[int]]:
    """Returns the budgets at which to calibrate each method of the adaptive strategy.

    Args:
      budgets: budgets of the methods that choose among whole samples.
      tree_arms: budgets of the searches over steps, which cost the most to calibrate.
    """
    parallel = {name: list(budgets) for name in EXTENDS_PILOTS}
    return {"cot": [1], **parallel, "beam": list(tree_arms), "dvts": list(tree_arms)}
