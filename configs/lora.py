"""The section of low-rank adapters, which several recipes share; not a recipe by itself."""

from ml_collections import ConfigDict


def get_lora() -> ConfigDict:
    """No adapters; `--config.lora.rank=16` trains adapters of that rank instead of all weights.

    What is exported is merged, so it loads like any other model. Adapters usually need about ten
    times the learning rate of full training.
    """
    return ConfigDict(
        {
            # Rank 0 trains all parameters.
            "rank": 0,
            # alpha / rank scales the change.
            "alpha": 32.0,
            # The adapted kernels by path, see `models/lora.py`.
            "targets": r"(dense_)?layers/(attention|mlp|mlp/shared)/\w+/kernel",
        }
    )
