# %% [markdown]
# # R1-Zero: reasoning from reinforcement learning alone
#
# DeepSeek-R1-Zero starts from a base model, which only continues text. Nobody shows it how to reason.
# It answers each problem several times; a program checks the answers; answers that are better than
# their group's average become more likely. This is GRPO.
#
# This notebook does the same in a tiny world: it trains a small base model from scratch, and then
# trains it by RL with two rewards, one for a right answer and one for the format.

# %%
import os
from pathlib import Path

import jax

SCALE = os.environ.get("ERGO_NOTEBOOK_SCALE", "full")
WORKDIR = Path(os.environ.get("ERGO_NOTEBOOK_DIR", "runs/notebooks"))
print(f"{SCALE} settings on {jax.devices()}")

# %% [markdown]
# ## The settings
#
# The whole tiny world is one config. Any field of it can be changed before it is checked.

# %%
from configs import tiny
from launch import schema
from launch.schema.tiny import TinyConfig

config = tiny.get_config("smoke" if SCALE == "test" else "")
if SCALE == "test":
    config.model.num_layers = config.model.scan_unroll = 1
    config.pretrain.documents = 700
    config.evaluation.problems = 4
print("rewards:", config.r1_zero.rewards)
print("answers to each problem:", config.r1_zero.group)
config = schema.load(TinyConfig, config)

# %% [markdown]
# ## The base model
#
# It learns to predict the next token of a small corpus. A second run of this cell finds the result on
# disk and returns at once; an interrupted one goes on where it was.

# %%
from launch.parts import report
from launch.recipe import runner, world

[work] = world.open_workspaces(config, WORKDIR, 1)
base = runner.run_stages(work, ["base"])
report.print_table(base, 1)

# %% [markdown]
# ## RL, live
#
# The plot moves while the model trains: mean reward, and the length of the responses.

# %%
import io

from IPython.display import Image, display
from matplotlib.figure import Figure

from launch.parts import live

plot = display("no step yet", display_id=True)


def show(records):
    figure = Figure(figsize=(9, 3), layout="constrained")
    for axis, name in zip(figure.subplots(1, 2), ("reward", "response_tokens")):
        points = [(each["step"], each[name]) for each in records if name in each]
        axis.plot(*zip(*points), marker=".")
        axis.set(xlabel="step", ylabel=name)
    picture = io.BytesIO()
    figure.savefig(picture, format="png", dpi=100)
    plot.update(Image(picture.getvalue()))


# %%
with live.watch(work.directory / "r1_zero", show):
    trained = runner.run_stages(work, ["r1_zero"])
report.print_table(base | trained, 1)

# %% [markdown]
# ## Before and after
#
# The same test problems, answered by the base model and by R1-Zero. Does the chain of thought
# reach the answer, and does the answer follow from it?

# %%
directories = {stage: work.directory / stage for stage in ("base", "r1_zero")}
report.show_samples(WORKDIR / "samples.json", directories, count=2)

# %% [markdown]
# ## Exercise
#
# Take the format reward out (`config.r1_zero.rewards`) and train again. What happens to the share of
# responses in the right format, and why does `require_format=true` of the accuracy reward matter?
