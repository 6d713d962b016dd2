# %% [markdown]
# # Inference-time scaling: more thinking for the same model
#
# A language model can get better at problems without any further training, if it may spend more
# compute on each answer. There are two ways, and they add up:
#
# - **Longer answers.** The model writes a chain of thought before it answers.
# - **More answers.** The model answers several times, and a vote, a verifier or a search chooses.
#
# This notebook measures both on one small model, at equal compute.

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
# ## The model
#
# We take a reasoner of 0.85 million weights that this notebook trains itself: a base model, which
# learns to continue the texts of a tiny world, and then reinforcement learning on top of it (the
# notebook on R1-Zero explains that). What has been trained in this folder before is not trained
# again.

# %%
from configs import notebooks
from launch import schema
from launch.parts import live
from launch.recipe import runner, world
from launch.schema.tiny import TinyConfig

config = schema.load(TinyConfig, notebooks.get_config("" if SCALE == "full" else SCALE))
[work] = world.open_workspaces(config, WORKDIR, 1)
with live.plot(work.directory / "base", {"loss": "loss of the base model"}):
    runner.run_stages(work, ["base"])

# %%
with live.plot(work.directory / "r1_zero", {"reward": "reward", "accuracy": "accuracy"}):
    runner.run_stages(work, ["r1_zero"])

# %% [markdown]
# ## The problems, and how to ask
#
# The problems are sums with two more terms than the model has met in RL, so it often fails. A
# `Policy` holds all that a search method needs: the model, its prompt, its limits.

# %%
from launch.parts import stages
from models.decoding.sampling import SamplingParams
from reasoning.generation.jax_generator import JaxGenerator
from reasoning.generation.jax_steps import JaxStepGenerator
from reasoning.prompts import get_template
from reasoning.search.interface import Policy
from reasoning.tasks import get_task

task = get_task("tiny_math?low=9&high=9")
problems = task.problems("test", 200 if SCALE == "full" else 4, 0)
plain = get_template("plain", work.tokenizer)
print(plain(problems[0].question))
print("the right answer:", problems[0].answer)

# %%
params = stages.load_stage(work, "r1_zero")
parts = work.model, params, work.tokenizer
policy = Policy(
    generator=JaxGenerator(*parts, rows=256 if SCALE == "full" else 16),
    steps=JaxStepGenerator(*parts),
    task=task,
    template=plain,
    max_new_tokens=112,
    step_tokens=16,
    typical_tokens=69,  # One unit of a budget buys so many tokens: a typical response.
    sampling=SamplingParams(temperature=0.7),
    model=work.model.config,
)

# %% [markdown]
# ## Longer answers: a chain of thought
#
# `direct` begins the response with an empty chain, so the model must answer at once. `cot` lets it
# think. Both take the likeliest token at every place.

# %%
from launch.jobs import search
from reasoning.search.methods import method_entries
from reasoning.verifiers.likelihood import SelfCertainty
from reasoning.verifiers.rule import RuleVerifier

known = {"certainty": SelfCertainty(*parts), "oracle": RuleVerifier(task), "plain": plain}
entries = method_entries(None, None, **known, aggregation="last", wait="wait")
results = {name: entries[name].method(policy, None, problems, 1) for name in ("direct", "cot")}
for name, answers in results.items():
    verdicts = task.verify_all(problems, [each.answer or "" for each in answers])
    right = sum(verdict.correct for verdict in verdicts)
    tokens = sum(each.spent.generated_tokens for each in answers) / len(answers)
    print(f"{name:6} {right} of {len(problems)} right, {tokens:.0f} tokens each")

# %%
print(problems[0].question, "=", problems[0].answer)
for name, answers in results.items():
    print(f"\n--- {name} ---\n{answers[0].response.strip()}")

# %% [markdown]
# ## More answers: a vote
#
# At temperature 0.7 every chain is different. *Self-consistency* takes the most frequent answer.
# Look at the votes: how often is the right answer among them, and how often does it win?

# %%
from collections import Counter

voted = entries["majority"].method(policy, None, problems[:3], 16, seed=1)
for result in voted:
    votes = Counter(each.answer for each in result.candidates)
    print(f"{result.problem.question}   right: {result.problem.answer}, chosen: {result.answer}")
    print("   votes:", dict(votes.most_common(6)))

# %% [markdown]
# ## A judge: the process reward model
#
# Where the right answer is among the samples but does not win the vote, a *verifier* can find it.
# We sample solutions, and label each step by how often a continuation from there comes out right.
# The model then learns to predict these labels: this is a process reward model (PRM). An outcome
# reward model (ORM), which sees only the final verdict, is trained beside it.

# %%
with live.plot(work.directory / "verifiers" / "process_soft", {"loss": "loss of the PRM"}):
    trained = runner.run_stages(work, ["verifiers"])["verifiers"]
print({name: round(value, 2) for name, value in trained["labels"].items()})

# %% [markdown]
# ## The comparison
#
# Every method gets the same budgets, and the plot grows with each measurement. `beam` and `mcts` do
# not choose among whole responses: they let the PRM decide, step by step, which to continue.
# `oracle` is no method: it chooses with the right answer in hand, so nobody can choose better.

# %%
from launch.jobs import verifier_training
from launch.recipe.stages import verifiers

folder, plan = work.directory / "verifiers", verifiers.plan(work)
prm = verifier_training.load_process_verifier(plan, folder)
orm = verifier_training.load_outcome_verifier(plan, folder)
entries = method_entries(prm, orm, **known, aggregation="last", wait="wait")

# %%
from IPython.display import Image, display

names = "direct cot majority best_of_n_prm weighted_majority beam mcts oracle".split()
budgets = [1, 4, 16]
if SCALE == "test":
    names, budgets = names[:5], [1, 2]
folder, records = WORKDIR / "inference_time_scaling", []
folder.mkdir(parents=True, exist_ok=True)
shown = display("nothing measured yet", display_id=True)
for name in names:
    measured = search.compare(policy, entries, problems, {name: budgets},
                              folder / "measured.jsonl", seed=0, title="search")  # fmt: skip
    records += [each.summary() for each in measured]
    search.plot(folder / "search.png", records)
    shown.update(Image(folder / "search.png", width=700))

# %%
search.print_table(records)

# %% [markdown]
# ## Inside a search
#
# What beam search kept for one problem: finished paths, each with the PRM's score of its last step.

# %%
result = entries["beam"].method(policy, prm, problems[:1], budgets[-1], seed=2)[0]
print(f"{result.problem.question}   right: {result.problem.answer}, chosen: {result.answer}")
for each in sorted(result.candidates, key=lambda each: -(each.score or 0))[:3]:
    print(f"\n--- score {each.score or 0:.2f} ---\n{each.response.strip()}")

# %% [markdown]
# ## Exercise
#
# 1. Add `"best_of_n_orm"` and `"lookahead"` to `names`. Which of them is worth its tokens?
# 2. Make the vote hotter or colder (`temperature` of the `Policy`; give the comparison another
#    `folder`). What happens to `majority`, and what to `oracle`? Why do they not move together?
