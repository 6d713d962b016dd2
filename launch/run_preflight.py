"""Finds out whether a recipe's train step fits a machine that you do not have here.

    python -m launch.run_preflight --config=configs/r1_full.py:cold_start,qwen2.5-7b \
        --topology=v5p:4x4x4 --output=fits.json

The program compiles the real step, with abstract arrays, for a TPU topology. `pip install libtpu`
brings the compiler; no TPU is needed. `--topology=cpu:8` compiles for 8 virtual CPU devices: this
checks the shardings, but its memory is not that of an accelerator. A check takes one to a few
minutes on two cores.

The program counts what a device holds during a step: weights, optimizer state, gradients and
activations; in RL the reference policy too. Rollouts run at another time, with the same weights and
optimizer state; the program does not check their key-value cache.
"""

import os
import re
import time
from pathlib import Path
from typing import Any

from absl import flags

from launch.parts import runtime
from launch.schema.rl import RlConfig
from launch.schema.supervised import SftConfig

# HBM in GiB by device kind, as Google's documentation of each TPU generation states it.
HBM_GIB = {"TPU v4": 32, "TPU v5 lite": 16, "TPU v5": 95, "TPU v6 lite": 32, "TPU7x": 192}
GIB = 2**30


def main(argv: list[str]) -> None:
    """Runs the job as the flags say."""
    del argv
    topology = _TOPOLOGY.value
    config = runtime.read_config(_CONFIG, _recipe_of(_CONFIG.value))
    prepare(topology)
    row = check(config, topology, _MODEL.value or config.model)
    print_table(row)
    if _OUTPUT.value:
        from launch.parts.report import write_report

        write_report(Path(_OUTPUT.value).expanduser().resolve(), row)


def prepare(topology: str) -> None:
    """Sets the environment variables for a topology; call it before JAX touches a device.

    Raises:
      ValueError: `topology` is malformed.
    """
    if not re.fullmatch(r"[\w-]+:[1-9]\d*(x[1-9]\d*)*", topology):
        raise ValueError(
            f"--topology={topology!r} is malformed: write GENERATION:SHAPE, such as v5p:4x4x4,"
            " or cpu:8"
        )
    os.environ["JAX_PLATFORMS"] = "cpu"
    kind, _, shape = topology.partition(":")
    if kind == "cpu":
        flag = f"--xla_force_host_platform_device_count={shape}"
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {flag}".strip()
    else:
        # Otherwise libtpu asks the metadata server of a cloud machine, and waits.
        os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
        # A compiler uses no device, so several may run at a time.
        os.environ.setdefault("ALLOW_MULTIPLE_LIBTPU_LOAD", "1")


def _recipe_of(config) -> type[RlConfig] | type[SftConfig]:
    """Returns the schema of a config of `run_sft` or `run_rl`."""
    return SftConfig if config is not None and "num_epochs" in config else RlConfig


def check(config: RlConfig | SftConfig, topology: str, model: str) -> dict[str, Any]:
    """Compiles the train step of `config`, of `run_sft` or `run_rl`, for a topology.

    Args:
      model: a name of `models.named_configs`, `hf://org/name` with such a name, or a checkpoint.

    Returns:
      The figures that `print_table` shows, JSON-able. Bytes are those of one device.

    Raises:
      ValueError: an unknown topology or model, no libtpu, or rows that do not divide.
    """
    import jax

    from launch.parts import flops
    from train.state import abstract_state

    devices = _devices(topology)
    mesh = runtime.build_mesh(config, devices)
    model_config = _model_config(model).replace(dtype="bfloat16", remat=config.remat)
    language_model, optimizer, step, names = _objective(config, model_config, mesh)
    batch = _abstract_batch(config, step, names)
    state = abstract_state(language_model, optimizer, mesh)
    with_reference = "reference_logprobs" in names
    kind = devices[0].device_kind
    row = {
        "model": model,
        "objective": "rl" if "advantages" in names else "sft",
        "topology": topology,
        "device": kind,
        "devices": len(devices),
        "mesh": {axis: size for axis, size in mesh.shape.items() if size > 1},
        "rows": config.rows,
        "row_length": config.row_length,
        "microbatches": config.microbatches,
        "params": model_config.num_params,
        "flops": flops.UPDATE * flops.forward(model_config, [config.row_length] * config.rows),
        "hbm_bytes": HBM_GIB[kind] * GIB if kind in HBM_GIB else None,
        "state_bytes": _bytes_per_device(state),
        "reference_bytes": _bytes_per_device(state.params) if with_reference else 0,
    }
    start = time.monotonic()
    try:
        compiled = step.lower(state, batch).compile()
    except jax.errors.JaxRuntimeError as error:
        temporaries = _temporary_bytes(str(error))
        if temporaries is None:
            raise
        peak = row["state_bytes"] + temporaries
    else:
        used = compiled.memory_analysis()
        peak = used.argument_size_in_bytes + used.temp_size_in_bytes
        peak += used.output_size_in_bytes - used.alias_size_in_bytes
    row["compile_seconds"] = time.monotonic() - start
    row["peak_bytes"] = peak + row["reference_bytes"]
    row["fits"] = None if row["hbm_bytes"] is None else row["peak_bytes"] <= row["hbm_bytes"]
    return row


def print_table(row: dict[str, Any]) -> None:
    """Prints what `check` returns."""
    from rich.console import Console
    from rich.table import Table

    mesh = " x ".join(f"{axis} {size}" for axis, size in row["mesh"].items()) or "one device"
    table = Table("what", "value", title=f"{row['model']}, {row['objective']}, {row['topology']}")
    table.add_row("weights", f"{row['params'] / 1e9:.2f} billion")
    table.add_row("devices", f"{row['devices']} ({row['device']}): {mesh}")
    table.add_row(
        "batch",
        f"{row['rows']} rows of {row['row_length']:,} tokens in {row['microbatches']} microbatches",
    )
    table.add_row("FLOPs a step, without recomputation", f"{row['flops']:.3g}")
    for name, key in (
        ("weights and optimizer state", "state_bytes"),
        ("reference policy", "reference_bytes"),
        ("peak", "peak_bytes"),
        ("memory", "hbm_bytes"),
    ):
        if row[key]:
            table.add_row(f"{name}, a device", f"{row[key] / GIB:.2f} GiB")
    fits = {True: "yes", False: "NO", None: "unknown: no accelerator"}[row["fits"]]
    table.add_row("fits", fits)
    table.add_row("compiled in", f"{row['compile_seconds']:.0f} s")
    Console(width=110).print(table)


def _devices(topology):
    """Returns the devices of a topology, which need not exist."""
    import jax
    from jax.experimental import topologies

    kind, _, shape = topology.partition(":")
    if kind == "cpu":
        return jax.devices()[: int(shape)]
    try:
        return topologies.get_topology_desc(platform="tpu", topology_name=topology).devices
    except Exception as error:  # A missing library and an unknown name raise different types.
        reason = " ".join(str(error).split())[:200]
        raise ValueError(
            f"--topology={topology!r} is not available: {reason}; run `pip install libtpu`, and"
            " give a name such as v4:2x2x2, v5e:4x4, v5p:4x4x4, v6e:8x8"
        ) from None


def _model_config(model):
    from models.checkpoint import load_config
    from models.named_configs import NAMED_CONFIGS, named_config

    name = model.removeprefix("hf://").rpartition("/")[2].lower()
    if name in NAMED_CONFIGS:
        return named_config(name)
    try:
        return load_config(model)
    except (ValueError, OSError) as error:
        raise ValueError(
            f"{error}; or give one of the known sizes by --model: {', '.join(NAMED_CONFIGS)}"
        ) from None


def _objective(config, model_config, mesh):
    """Returns the model, the optimizer, the step, and the dtypes of the batch's arrays by name."""
    from launch.jobs.training.reinforcement import policy_step
    from models.decoder import LanguageModel
    from train.objectives import sft
    from train.optimizer import make_optimizer
    from train.step import make_train_step

    model = LanguageModel(model_config)
    # The number of steps is arbitrary: it does not change the size of the program.
    num_steps = 1000 + config.optimizer.warmup_steps + (config.optimizer.decay_steps or 0)
    optimizer = make_optimizer(config.optimizer.settings(), model.abstract_params, num_steps)
    names: dict[str, str] = dict.fromkeys(("tokens", "positions", "segment_ids"), "int32")
    names["loss_weights"] = "float32"
    if isinstance(config, SftConfig):
        step = make_train_step(
            sft.make_loss(model), optimizer, mesh, accumulate=config.microbatches
        )
        return model, optimizer, step, names
    variant, step = policy_step(model, optimizer, mesh, config)
    rl_names = ["advantages", "behaviour_logprobs"]
    rl_names += ["old_logprobs"] * config.recompute_old
    rl_names += ["reference_logprobs"] * (variant.loss.beta > 0)
    return model, optimizer, step, names | dict.fromkeys(rl_names, "float32")


def _abstract_batch(config, step, names):
    import jax
    import numpy as np

    from models.sharding import batch_sharding

    step.check_rows(config.rows)
    shape, sharding = (config.rows, config.row_length), batch_sharding(step.mesh)
    return {
        name: jax.ShapeDtypeStruct(shape, np.dtype(dtype), sharding=sharding)
        for name, dtype in names.items()
    }


def _bytes_per_device(tree):
    import jax
    import numpy as np

    return sum(
        int(np.prod(leaf.sharding.shard_shape(leaf.shape))) * leaf.dtype.itemsize
        for leaf in jax.tree.leaves(tree)
    )


def _temporary_bytes(message):
    """Reads from the TPU compiler's error how many bytes of temporaries a program needs."""
    found = re.search(r"HLO temporaries \(([\d.]+)([KMGT])\) exceeds available HBM", message)
    return int(float(found[1]) * 1024 ** ("KMGT".index(found[2]) + 1)) if found else None


if __name__ == "__main__":
    # Flags are global: defined here, they do not clash where a program imports several entry
    # points.
    _CONFIG = runtime.define_config("", "a recipe of run_sft or run_rl")
    _TOPOLOGY = flags.DEFINE_string("topology", "v5p:4x4x4", "a TPU topology, or cpu:DEVICES")
    _MODEL = flags.DEFINE_string("model", None, "a size or checkpoint instead of config.model")
    _OUTPUT = flags.DEFINE_string("output", None, "a JSON file for the result")
    runtime.run_main(main)
