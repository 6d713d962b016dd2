"""R1-Zero: RL with verifiable rewards from the base model, with no SFT before it."""

from launch.recipe.reinforce import rl_stage

STAGE = rl_stage("r1_zero", start="base")
