"""The optimizer's settings that every recipe starts from; not a recipe by itself."""

from typing import Any

from ml_collections import ConfigDict
from ml_collections.config_dict import placeholder


def get_optimizer(schedule: str, **changes: Any) -> ConfigDict:
    """Returns settings of AdamW with changes; None takes the default of `train/optimizer.py`."""
    config = ConfigDict(
        {
            "name": "adamw",
            "learning_rate": 1e-5,
            "schedule": schedule,
            "warmup_steps": 0,
            # For the schedule wsd only.
            "decay_steps": placeholder(int),
            "final_fraction": placeholder(float),
            "weight_decay": 0.0,
            "clip_norm": 1.0,
            "b1": placeholder(float),
            "b2": placeholder(float),
            "eps": placeholder(float),
            "mu_dtype": placeholder(str),
            "momentum": placeholder(float),
            "rms": placeholder(float),
        }
    )
    config.update(changes)
    return config
