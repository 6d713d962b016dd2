"""Run by test_meshes.py as each process of a job: `PORT RANK PROCESSES WORKDIR STEPS [STEPS ...]`.

Trains the bigram model on a mesh of four devices up to each number of steps in turn; each time it
resumes from the checkpoint of the time before. Saves the weights that it begins and ends with.
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


def main(port, rank, processes, workdir, *steps):
    rank, workdir = int(rank), Path(workdir)
    jax.distributed.initialize(
        f"127.0.0.1:{port}", num_processes=int(processes), process_id=rank
    )  # fmt: skip
    model, mesh = Bigram(), make_mesh({"data": 2, "fsdp": 2})
    optimizer = make_optimizer({"learning_rate": 0.05}, model.abstract_params, 6)
    step = make_train_step(sft.make_loss(model), optimizer, mesh)

    def save(name, params):
        assert not params["embedding"].is_fully_addressable
        params = multihost_utils.process_allgather(params, tiled=True)
        np.savez(workdir / f"{name}_{processes}_{rank}.npz", **flatten_dict(params, sep="/"))

    for num_steps in map(int, steps):
        state = create_state(model, optimizer, mesh, jax.random.key(0))
        with Checkpointer(workdir / "checkpoints", keep=9) as checkpointer:
            if checkpointer.latest_step() is not None:
                restored = checkpointer.restore(state)[0]
                save(f"restored{int(restored.step)}", restored.params)
            result = run(
                state,
                step,
                PackedSource(examples(), rows=4, row_length=16, seed=0),
                num_steps=num_steps,
                checkpointer=checkpointer,
                writer=MetricWriter(workdir),
                log_every=1,
            )
        save(f"trained{num_steps}", result.state.params)


if __name__ == "__main__":
    main(*sys.argv[1:])
