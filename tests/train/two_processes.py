"""Run by test_meshes.py as each of two processes: `python two_processes.py PORT RANK WORKDIR`.

Trains the bigram model on a mesh over both processes, stops after three steps, resumes from the
checkpoint, and saves the weights.
"""

import sys
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict
from jax.experimental import multihost_utils

from models.sharding import make_mesh
from tests.train.bigram import Bigram, examples
from train.checkpoint import Checkpointer
from train.loop import run
from train.metrics import MetricWriter
from train.objectives import sft
from train.optimizer import make_optimizer
from train.source import PackedSource
from train.state import create_state
from train.step import make_train_step


def main(port, rank, workdir):
    jax.distributed.initialize(f"127.0.0.1:{port}", num_processes=2, process_id=int(rank))
    model, mesh = Bigram(), make_mesh({"fsdp": 2})
    optimizer = make_optimizer({"learning_rate": 0.05}, model.abstract_params, 6)
    step = make_train_step(sft.make_loss(model), optimizer, mesh, accumulate=2)
    for num_steps in (3, 6):
        with Checkpointer(Path(workdir) / "checkpoints") as checkpointer:
            result = run(
                create_state(model, optimizer, mesh, jax.random.key(0)),
                step,
                PackedSource(examples(), rows=4, row_length=16, seed=0),
                num_steps=num_steps,
                checkpointer=checkpointer,
                writer=MetricWriter(workdir),
                log_every=1,
            )
    assert not result.state.params["embedding"].is_fully_addressable
    params = multihost_utils.process_allgather(result.state.params, tiled=True)
    np.savez(Path(workdir) / f"weights{rank}.npz", **flatten_dict(params, sep="/"))


if __name__ == "__main__":
    main(*sys.argv[1:])
