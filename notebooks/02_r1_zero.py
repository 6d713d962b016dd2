# %% [markdown]
# # R1-Zero: reasoning from reinforcement learning alone
#
# DeepSeek-R1-Zero starts from a base model, which only continues text. Nobody shows it how to
# reason. It answers each problem several times; a program checks the answers; answers that are
# better than their group's average become more likely. This is GRPO.
#
# This notebook does the same in a tiny world: it trains a small base model from scratch, and then
# trains it by RL with two rewards, one for a right answer and one for the format.

# %%
import os
from pathlib import Path

from launch.parts import runtime

runtime.prepare_backend()  # Sets XLA's flags; it has to come before JAX touches a device.
import jax

SCALE = os.environ.get("ERGO_NOTEBOOK_SCALE", "full")
WORKDIR = Path(os.environ.get("ERGO_NOTEBOOK_DIR", "runs/notebooks"))
print(f"{SCALE} settings on {jax.devices()}")

# %% [markdown]
# ## The settings
#
# The whole tiny world is one config. Any field of it can be changed before it is checked.

# %%
from configs import notebooks
from launch import schema
from launch.schema.tiny import TinyConfig

config = notebooks.get_config("" if SCALE == "full" else SCALE)
print("problems:", dict(config.r1_zero.problems))
print("rewards:", config.r1_zero.rewards)
print("answers to each problem:", config.r1_zero.group)
config = schema.load(TinyConfig, config)

# %% [markdown]
# The accuracy reward is a program that compares the answer with the known one; no model judges. It
# pays only where the response has the right format, and only on sums, logic and code. The format
# reward pays 0.2 for `<think>…</think> <answer>…</answer>`. Rewards of weight 0 are only logged.
#
# ## The base model
#
# It learns to predict the next token of a small, messy corpus: worked solutions, some of them wrong
# or without tags, facts and small talk. A second run of this cell finds the result on disk and
# returns at once; an interrupted one goes on where it was.

# %%
from launch.parts import live, report
from launch.recipe import runner, world

[work] = world.open_workspaces(config, WORKDIR, 1)
with live.plot(work.directory / "base", {"loss": "loss of the base model"}):
    base = runner.run_stages(work, ["base"])
report.print_table(base, 1)

# %% [markdown]
# ## RL, live
#
# The plot moves while the model trains: mean reward, share of right answers, length of the
# responses.

# %%
labels = {"reward": "reward", "accuracy": "accuracy", "response_tokens": "response, tokens"}
with live.plot(work.directory / "r1_zero", labels):
    trained = runner.run_stages(work, ["r1_zero"])
report.print_table(base | trained, 1)

# %% [markdown]
# Compare the columns, with their intervals. DeepSeek reports that responses grow and accuracy
# rises. It also reports that R1-Zero mixes languages, and that its model checks itself more and
# more. See `language_consistency` and `self_checks`: not all of it holds for a model of this size.
#
# ## Before and after
#
# The same test problems, answered by the base model and by R1-Zero. Does the chain of thought reach
# the answer, and does the answer follow from it?

# %%
directories = {stage: work.directory / stage for stage in ("base", "r1_zero")}
report.show_samples(WORKDIR / "samples.json", directories, count=2)

# %% [markdown]
# ## Exercise
#
# Take the format reward out (`config.r1_zero.rewards`) and train again. What happens to the share
# of responses in the right format, and why does `require_format=true` of the accuracy reward
# matter?
