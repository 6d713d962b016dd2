# %% [markdown]
# # Distillation: a small student of a strong teacher
#
# DeepSeek fine-tuned small Qwen and Llama models on responses that R1 had written. These students
# reasoned better than a model of the same kind that was trained by RL alone.
#
# This notebook asks the same question in a tiny world. The teacher is R1-Zero; the student has less
# than a quarter of its weights. One student imitates the teacher; its twin learns by RL alone.

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
# ## The teacher
#
# If the notebook on R1-Zero has run in this folder, the teacher is there and this takes no time.

# %%
from configs import notebooks
from launch import schema
from launch.parts import live, report
from launch.recipe import runner, world
from launch.schema.tiny import TinyConfig

config = schema.load(TinyConfig, notebooks.get_config("" if SCALE == "full" else SCALE))
[work] = world.open_workspaces(config, WORKDIR, 1)
runner.run_stages(work, ["base"])
with live.plot(work.directory / "r1_zero", {"reward": "reward", "accuracy": "accuracy"}):
    runner.run_stages(work, ["r1_zero"])

# %% [markdown]
# ## Two students
#
# Both start from one small base model of the same corpus. `rl_only` gets problems and rewards.
# `sequence` gets the teacher's responses: the teacher answers each training problem once, wrong
# answers are dropped, and the student is fine-tuned on the rest.

# %%
student = config.distill.base.model
print(f"student: {student.num_layers} layers of width {student.embed_dim}")
print(f"teacher: {config.model.num_layers} layers of width {config.model.embed_dim}")
folder = work.directory / "distill"
labels = {"reward": "reward (RL alone)", "response_tokens": "response, tokens (RL alone)"}
with live.plot(folder / "rl_only", labels), live.plot(folder / "sequence", {"loss": "SFT loss"}):
    results = runner.run_stages(work, ["distill"])["distill"]
print(f"{results.pop('wall_seconds'):.0f} seconds in all")

# %% [markdown]
# ## What they learned, and what it cost
#
# Training FLOPs of `sequence` include what the teacher's sampling took. The teacher and the base
# model were there before, so theirs count as 0.

# %%
report.print_table(results, 1)
for name, each in results.items():
    spent = each["train_flops"] / 1e12
    print(f"{name:9} {each['params']:>8,} weights, {spent:.2f} TFLOP of training")

# %%
from matplotlib.figure import Figure

figure = Figure(figsize=(7, 3), layout="constrained")
axis = figure.subplots()
for number, (name, each) in enumerate(results.items()):
    found = each["metrics"]["math/pass@1"]
    low, high = (100 * bound for bound in found["ci95"])
    mean = 100 * found["mean"]
    axis.errorbar(number, mean, [[mean - low], [high - mean]], fmt="o", capsize=4)
axis.set_xticks(range(len(results)), list(results))
axis.set(ylabel="sums solved, %, with 95 % interval", ylim=(0, 100))
live.picture(figure)

# %% [markdown]
# ## A lesson, and the student before and after

# %%
from models.files import read_jsonl

_, lesson = next(read_jsonl(folder / "teacher" / "data.jsonl"))
print("one of the teacher's lessons:")
for key, value in lesson.items():
    print(f"  {key}: {value}")
directories = {name: folder / name for name in ("base", "rl_only", "sequence")}
report.show_samples(WORKDIR / "samples.json", directories, count=1)

# %% [markdown]
# Which of the student's abilities did *not* come from the lessons, and suffer? Look at
# `knowledge/accuracy`: the lessons hold no facts.
#
# ## Exercise
#
# 1. Add `"logit"` to `config.distill.methods` (before `schema.load`). The student then sees the
#    teacher's whole distribution at every token. Is that worth more here than its text?
# 2. Add `"distill_then_rl"`. The paper leaves RL after distillation to others: what does it add?
