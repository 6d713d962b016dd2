# %% [markdown]
# # To a TPU pod: first the preflight, then the job
#
# The programs of the other notebooks run unchanged on a TPU pod. What changes is one entry of the
# config: how the arrays are divided among the devices. A pod costs much by the hour, so two
# questions come first, and this notebook answers them without a TPU:
#
# - Does the train step of a full-scale recipe **fit** the memory of a slice?
# - Does the divided program still compute **the same**?

# %%
import importlib.metadata
import importlib.util
import os
import subprocess
import sys
from pathlib import Path

SCALE = os.environ.get("ERGO_NOTEBOOK_SCALE", "full")
WORKDIR = Path(os.environ.get("ERGO_NOTEBOOK_DIR", "runs/notebooks"))
if SCALE == "full" and importlib.util.find_spec("libtpu") is None:
    # The compiler for TPUs, in the version that this JAX can read; it needs no TPU.
    jax_tpu = f"jax[tpu]=={importlib.metadata.version('jax')}"
    subprocess.run([sys.executable, "-m", "pip", "install", "-q", jax_tpu], check=True)

# %% [markdown]
# Here JAX uses the CPU, whatever the machine has, and pretends that it is 8 devices. Both have to
# be said before JAX starts.

# %%
from launch.parts import runtime
from launch.preflight import machines

TOPOLOGIES = ["v5e:2x4", "v5p:2x2x2"] if SCALE == "full" else ["cpu:8"]
for topology in ("cpu:8", *TOPOLOGIES):
    machines.prepare(topology)
runtime.prepare_backend()
import jax

print(jax.devices())

# %% [markdown]
# ## Does it fit?
#
# The recipe is supervised fine-tuning of Qwen2.5-7B. The real train step is compiled for two slices
# of eight chips: `v5e:2x4`, whose chips have 16 GiB of memory, and `v5p:2x2x2` with 95 GiB. Arrays
# are abstract, so this machine holds no weights. The compiler says what one chip needs, and the
# compiled program says how many operations, reads and messages a step takes at least.

# %%
from configs import sft
from launch import schema
from launch.preflight import check
from launch.schema.supervised import SftConfig

config, model = sft.get_config(), "qwen2.5-7b"
if SCALE == "test":
    config.rows, config.microbatches, config.row_length = 8, 1, 128
    model = str(WORKDIR / "seed_0" / "base" / "hf")
config = schema.load(SftConfig, config)
rows = [check.check(config, topology, model) for topology in TOPOLOGIES]

# %%
from launch.preflight.report import print_report

for row in rows:
    print_report(row)

# %% [markdown]
# Weights and optimizer state are divided among the chips: with twice the chips, each holds half as
# much. `python -m launch.run_preflight` does the same for all that RL runs, the sampler included,
# and for the recipes of `configs/r1_full.py` with the paper's batches on 64 or 512 chips. That
# compiles for minutes.
#
# ## Does it compute the same?
#
# The mesh of the recipe has named axes. `data` gives each group of devices its own rows; `fsdp`
# divides rows and weights; `tensor` divides each layer's matrices. We train the small base model of
# the other notebooks twice, on 8 virtual devices and on one, with the same program.

# %%
from configs import notebooks
from launch.recipe import world
from launch.schema.tiny import TinyConfig

config = notebooks.get_config("" if SCALE == "full" else SCALE)
config.mesh = {"data": 2, "fsdp": 4, "tensor": 1}
if SCALE == "full":
    config.pretrain.documents = 4000
config.pretrain.log_every = 2
config = schema.load(TinyConfig, config)
[work] = world.open_workspaces(config, WORKDIR / "pod", 1)

# %%
from launch.parts import live

divided = work.directory / "eight_devices"
with live.plot(divided, {"loss": "loss on 8 devices", "grad_norm": "norm of the gradient"}):
    params = world.world_of(config).make_base(work, divided)
largest = max(jax.tree.leaves(params), key=lambda leaf: leaf.size)
part = largest.sharding.shard_shape(largest.shape)
print(f"the largest array is {largest.shape}, and each device holds {part}")

# %%
import dataclasses

mesh = runtime.build_mesh(notebooks.get_config(), jax.devices()[:1])
alone = dataclasses.replace(work, mesh=mesh)
with live.plot(work.directory / "one_device", {"loss": "loss on 1 device"}):
    world.world_of(config).make_base(alone, work.directory / "one_device")

# %%
from train.metrics import read_metrics

of_eight = [record["loss"] for record in read_metrics(divided)]
of_one = [record["loss"] for record in read_metrics(work.directory / "one_device")]
print("last loss on 8 devices:", of_eight[-1])
print("last loss on 1 device: ", of_one[-1])
print("largest difference:    ", max(abs(a - b) for a, b in zip(of_eight, of_one, strict=True)))

# %% [markdown]
# Sums are added up in another order, so the last digits differ; nothing else may.
#
# ## The job
#
# `launch/cluster` has a script for each way to get machines: Cloud TPU VMs, Google Kubernetes
# Engine, Slurm. `--dry_run` prints what it would run, so nothing is started here: it asks for a
# slice, and runs the same command in a container on each of its machines. The processes find each
# other.

# %%
import launch

script = Path(launch.__file__).parent / "cluster" / "tpu_vm.sh"
command = (
    "run --project=PROJECT --zone=us-east5-a --name=ergo --type=v5p-128"
    " --image=us-docker.pkg.dev/PROJECT/ergo/ergo:tpu --dry_run --"
    " python -m launch.run_rl --config=configs/r1_full.py:reasoning_rl,qwen2.5-7b"
    " --config.task=jsonl:problems.jsonl --workdir=gs://BUCKET/run"
)
print(subprocess.check_output(["bash", script, *command.split()], text=True))

# %% [markdown]
# A run that is interrupted saves its state and exits with code 75; the script starts it again, and
# it goes on where it was.
#
# ## Exercise
#
# 1. Which is the smallest model of `models/named_configs.py` that fits `v5e:2x4`? And what does
#    `config.microbatches` change (before `schema.load`)?
# 2. Give the small model the mesh `{"data": 1, "fsdp": 2, "tensor": 4}`. Do the losses still agree?
