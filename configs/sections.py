"""Sections that several recipes share, of adapters and of the mesh; not a recipe by itself."""

from ml_collections import ConfigDict


def get_rollout_server() -> ConfigDict:
    """Rollouts are sampled here; `--config.rollout_server.url=URL` lets a server sample them.

    It speaks SGLang's interface, as `launch.run_serve --rollouts` does, and gets new weights before
    each iteration.
    """
    return ConfigDict({"url": "", "api_key_env": "", "timeout_s": 600.0, "concurrency": 64})


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


def get_mesh(tensor: int = 1) -> ConfigDict:
    """Returns the devices along each mesh axis; `fsdp` takes those that are left.

    Which arrays each axis splits is said in `models/sharding.py`.

    Args:
      tensor: devices that share every row and the weights that compute it.
    """
    return ConfigDict(
        {
            # Slices of a TPU job, which a slow network joins; each has whole weights.
            "slice": 1,
            "data": 1,
            "fsdp": -1,
            # Devices that hold parts of the same rows, for long ones.
            "context": 1,
            "tensor": tensor,
            "expert": 1,
        }
    )
