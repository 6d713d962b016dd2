"""Distillation in the tiny world: R1-Zero's reasoning in a student of a quarter of its size.

    python -m launch.run_distill --config=configs/tiny_distill.py --workdir=runs/tiny_distill \
        --config.teacher=runs/tiny/seed_{seed}/r1_zero/hf

The student is a base model of the same corpus. From there it is taught by each method, or learns by
RL alone, at about the same cost in FLOPs. `--config=configs/tiny_distill.py:smoke` is the same path
in under a minute, for tests.
"""

from ml_collections import ConfigDict

from configs import distill, tiny

ARGUMENTS = ("", "smoke")


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ARGUMENTS:
        raise ValueError(
            f"configs/tiny_distill.py:{arg} is unknown; after the colon comes one of {ARGUMENTS}"
        )
    whole = tiny.get_config(arg)
    config = distill.get_config()
    for name in ("seed", "mesh", "template", "evaluation"):
        config[name] = whole[name]
    for name, value in whole.distill.items():
        config[name] = value
    config.task = ""
    config.dtype, config.remat = "float32", "none"
    config.teacher = "runs/tiny/seed_{seed}/r1_zero/hf"
    # Made here, from scratch; see `base`.
    config.student = ""
    return config
