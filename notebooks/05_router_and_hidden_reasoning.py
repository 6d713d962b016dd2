# %% [markdown]
# # When to reason, and whether to show it
#
# A reasoning model is slow and dear, and "hello" needs no chain of thought. This notebook builds
# what stands in front of such a model:
#
# - a **router**, which reads a query and decides how much thinking it deserves;
# - an **effort** setting, with which the user decides instead;
# - **hidden reasoning**: the model thinks, and the user sees only the answer or a summary.

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
# ## A reasoner
#
# We take R1-Zero of the tiny world. If another notebook has trained it in this folder, it is there.

# %%
from configs import notebooks
from launch import schema
from launch.parts import live
from launch.recipe import runner, world
from launch.schema.tiny import TinyConfig

config = schema.load(TinyConfig, notebooks.get_config("" if SCALE == "full" else SCALE))
[work] = world.open_workspaces(config, WORKDIR, 1)
runner.run_stages(work, ["base"])
with live.plot(work.directory / "r1_zero", {"reward": "reward", "accuracy": "accuracy"}):
    runner.run_stages(work, ["r1_zero"])

# %% [markdown]
# ## What each route does
#
# A route is a way to answer: at once (`direct`), after a chain of at most so many tokens, or by a
# vote of several chains. We run every route on training questions from small talk to long sums, and
# grade the answers. Several kinds of routers then learn to predict, from the text of a question
# alone, whether each route will be right and what it will cost.

# %%
from configs import router as router_config
from launch import run_router

settings = router_config.get_config("tiny")
settings.model = str(work.stage_directory("r1_zero") / "hf")
if SCALE == "test":
    settings.problems, settings.kinds, settings.folds = 12, ("rules", "linear"), 2
    settings.tasks, settings.routes = settings.tasks[:3], ("direct", "long_chain@16")
    settings.rows = 16
print("tasks:", settings.tasks)
print("routes:", settings.routes)
run_router.run(settings, str(WORKDIR / "router"))

# %% [markdown]
# Each line of the plot is a router at different prices of a token: further up is more accurate,
# further left is cheaper. `oracle` knows the outcomes. `random` throws dice. Black dots are the
# routes themselves, always taken.

# %%
from IPython.display import Image

Image(WORKDIR / "router" / "router.png", width=650)

# %% [markdown]
# ## Ask the router

# %%
from reasoning import router

chooser = router.load(WORKDIR / "router" / "linear")
queries = [
    "Hi, Ben here.",
    "What is the capital of Peru?",
    "What is 3 + 5?",
    "Compute 4 + 7 + 2 + 9 + 5 + 6 + 8 + 3.",
]
for query in queries:
    decision = chooser.choose(query)
    print(f"{query}\n   -> {decision.route.name}: {decision.why}")

# %% [markdown]
# Do you agree with it? The numbers are predictions from the words of the query; the router has not
# seen what the model writes.
#
# With a *promise* it weighs differently: `cost=20` promises at most 20 tokens a query on average.

# %%
for text in ("cost=20", "cost=100", "loss=0.05"):
    promise = router.Promise.parse(text)
    chosen = [chooser.choose(query, promise).route.name for query in queries]
    print(f"{text:10} {chosen}")

# %% [markdown]
# ## The user decides: effort

# %%
from reasoning import effort

limits = effort.Limits(chain=96)
for name in effort.EFFORTS:
    route = effort.route_for(limits, name)
    print(f"reasoning_effort={name:8} -> {route.name}")

# %% [markdown]
# ## Explicit or hidden reasoning
#
# The same reply three times: with its chain, without it, and with one line in its place. The text
# is split while it is written, so a hidden chain never shows, not even for a moment.

# %%
from rich.console import Console

from launch.jobs import chat
from launch.jobs.asked import LocalModel
from models.decoding.sampling import SamplingParams

question = world.training_problems(work, {"tiny_math": 1})[0].question
model, greedy = LocalModel(settings.model, "plain"), SamplingParams(temperature=0.0)
with model.open(rows=1) as opened:
    for mode in chat.THINKING_MODES:
        talk = chat.Conversation(model, opened, max_new_tokens=96, sampling=greedy)
        print(f"--- {mode} --- {question}")
        chat.show(talk.ask(question), mode, Console(force_jupyter=False, width=100))

# %% [markdown]
# ## Exercise
#
# 1. Add `"hidden"` and `"knn"` to the routers you ask (`hidden` reads the model's own states: see
#    `docs/router.md` for what it needs). Do they decide differently?
# 2. Which route would you take if a wrong answer cost 1,000 tokens? Compute it from
#    `decision.accuracy` and `decision.cost`.
