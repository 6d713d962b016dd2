"""What `configs/tiny.py:countdown` changes: a world of countdown alone, where search can prune.

The base model is the reasoner. Its corpus has wrong steps enough that its samples differ, so that
a search has something to gain; RL would make them alike.
"""

from ml_collections import ConfigDict

TASK = "tiny_countdown"
# Five numbers: the earlier a path is given up, the more tokens it saves.
SEARCHED = f"{TASK}?low=5&high=5"


def change(config: ConfigDict, smoke: bool) -> None:
    """Makes a config of the tiny world one of countdown; its size stays.

    Args:
      config: the config, changed in place.
      smoke: run in seconds, for tests.
    """
    config.reasoner = "base"
    # The chain is open, so the first step of a search is the first operation.
    config.template = "think"
    config.pretrain.corpus = config.distill.base.pretrain.corpus = "countdown"
    config.pretrain.documents = 1000 if smoke else 60_000

    config.verifiers.problems = {TASK: 24 if smoke else 4000}
    config.verifiers.solutions, config.verifiers.completions = 2, 4
    config.verifiers.max_new_tokens = 96

    config.search.task = SEARCHED
    config.search.problems = 16 if smoke else 300
    config.search.calibration = 16 if smoke else 60
    config.search.budgets = (1, 4) if smoke else (1, 2, 4, 8, 16, 32)
    config.search.max_new_tokens, config.search.step_tokens = 96, 32
    config.search.typical_tokens = 70
    config.search.temperature = 1.0

    config.evaluation.tasks = {"countdown": TASK}
    config.evaluation.votes.domains = ("countdown",)

    # The other stages are not part of the comparison, but they run on the same problems.
    rewards = f"accuracy?require_format=true&tasks={TASK},format=0.2"
    for section in (config.r1_zero, config.reasoning_rl, config.r1.rl):
        section.problems = {TASK: 64 if smoke else 2048}
    for section in (config.r1_zero, config.reasoning_rl, config.distill.rl_only):
        section.rewards = rewards
    config.r1.rl.rewards = {"accuracy": {"weight": 1.0, "require_format": True}, "format": 0.2}
    config.cold_start.problems = {TASK: 32 if smoke else 900}
    config.rejection_sft.reasoning.problems = {TASK: 32 if smoke else 2400}
    config.rejection_sft.general = config.r1.helpful = config.r1.harmless = None
    config.r1.harmless_problems = {}
    config.distill.problems = {TASK: 64 if smoke else 2048}
