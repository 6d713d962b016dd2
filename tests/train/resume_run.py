"""Run by test_resume.py: `python resume_run.py WORKDIR [DRAW]`.

Trains a tiny decoder; with DRAW, dies by SIGKILL when that batch is drawn. Writes the final weights
to WORKDIR/weights.npz.
"""

import os
import signal
import sys
import time
from pathlib import Path

import jax
import numpy as np
from flax.traverse_util import flatten_dict

from models.config import ModelConfig
from models.decoder import LanguageModel
from models.sharding import make_mesh
from train.checkpoint import Checkpointer
from train.loop import run
from train.metrics import MetricWriter
from train.objectives import sft
from train.optimizer import make_optimizer
from train.source import PackedSource
from train.state import create_state
from train.step import make_train_step

NUM_STEPS = 24


class DyingSource(PackedSource):
    dies_at, drawn = None, 0

    def next(self, state):
        self.drawn += 1
        if self.drawn == self.dies_at:
            os.kill(os.getpid(), signal.SIGKILL)
        # Time for the loop to be somewhere else than at its start.
        time.sleep(0.02)
        return super().next(state)


def main(workdir, dies_at=None):
    workdir = Path(workdir)
    config = ModelConfig(
        family="llama", vocab_size=64, embed_dim=32, num_layers=1, num_heads=2, num_kv_heads=1,
        head_dim=16, mlp_dim=64,
    )  # fmt: skip
    model, mesh = LanguageModel(config), make_mesh()
    optimizer = make_optimizer(
        {"learning_rate": 1e-2, "schedule": "cosine", "warmup_steps": 4, "weight_decay": 0.1},
        model.abstract_params,
        NUM_STEPS,
    )
    rng = np.random.default_rng(0)
    examples = [
        {"tokens": rng.integers(0, 64, n), "loss_weights": np.ones(n)}
        for n in rng.integers(4, 33, 100)
    ]
    source = DyingSource(examples, rows=4, row_length=32, seed=0, window=32)
    source.dies_at = dies_at
    with Checkpointer(workdir / "checkpoints", config={"lr": 1e-2}) as checkpointer:
        result = run(
            create_state(model, optimizer, mesh, jax.random.key(0)),
            make_train_step(sft.make_loss(model), optimizer, mesh, accumulate=2),
            source,
            num_steps=NUM_STEPS,
            writer=MetricWriter(workdir),
            checkpointer=checkpointer,
            checkpoint_every=5,
            log_every=2,
        )
    assert result.step == NUM_STEPS
    np.savez(workdir / "weights.npz", **flatten_dict(result.state.params, sep="/"))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:]))
