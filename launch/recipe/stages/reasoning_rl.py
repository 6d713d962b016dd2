"""Reasoning RL from the cold start: rewards accuracy, format and language consistency.

DeepSeek-R1 (arXiv:2501.12948, 2.3.2).
"""

from launch.recipe.reinforce import rl_stage

STAGE = rl_stage("reasoning_rl", start="cold_start")
