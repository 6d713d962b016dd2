"""Trains a little and prints a hash of the weights; test_cores.py runs `core_run.py CORES`.

The products are of such a size that XLA divides their sums among its threads.
"""

import hashlib
import os
import sys

os.sched_setaffinity(0, set(sorted(os.sched_getaffinity(0))[: int(sys.argv[1])]))

import jax  # noqa: E402
import numpy as np  # noqa: E402

from models.config import ModelConfig  # noqa: E402
from models.decoder import LanguageModel  # noqa: E402
from models.sharding import make_mesh  # noqa: E402
from train.loop import run  # noqa: E402
from train.objectives import sft  # noqa: E402
from train.optimizer import make_optimizer  # noqa: E402
from train.source import PackedSource  # noqa: E402
from train.state import create_state  # noqa: E402
from train.step import make_train_step  # noqa: E402

STEPS = 4


def main() -> None:
    config = ModelConfig(
        family="llama", vocab_size=256, embed_dim=128, num_layers=1, num_heads=2, num_kv_heads=1,
        head_dim=32, mlp_dim=256,
    )  # fmt: skip
    model, mesh = LanguageModel(config), make_mesh()
    optimizer = make_optimizer({"learning_rate": 1e-2}, model.abstract_params, STEPS)
    rng = np.random.default_rng(0)
    examples = [
        {"tokens": rng.integers(0, 256, n), "loss_weights": np.ones(n)}
        for n in rng.integers(20, 120, 100)
    ]
    result = run(
        create_state(model, optimizer, mesh, jax.random.key(0)),
        make_train_step(sft.make_loss(model), optimizer, mesh),
        PackedSource(examples, rows=16, row_length=128, seed=0, num_epochs=None),
        num_steps=STEPS,
    )
    digest = hashlib.sha256()
    for x in jax.tree.leaves(result.state.params):
        digest.update(np.asarray(x).tobytes())
    print(digest.hexdigest())


if __name__ == "__main__":
    main()
