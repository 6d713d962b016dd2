"""Checks one config against one machine: compiles its programs and predicts an iteration."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from launch.preflight import compiled, machines, prediction
from launch.preflight.programs import Config, Job
from launch.schema.rl import RlConfig
from models.config import ModelConfig


def check(
    config: Config,
    topology: str,
    model: str,
    response_tokens: int | None = None,
    told: Callable[[str], None] = lambda line: None,
    texts: Path | None = None,
) -> dict[str, Any]:
    """Compiles the programs of a job of `run_sft` or `run_rl` for a topology.

    Args:
      config: the job's config.
      topology: see `machines.devices_of`.
      model: a name of `models.named_configs`, `hf://org/name` with such a name, or a checkpoint.
      response_tokens: expected length of a response; the longest one by default.
      told: gets a line about each program that is compiled.
      texts: a folder for the text of the compiled programs.

    Returns:
      The figures that `report.print_report` shows, JSON-able. Bytes are those of one device.

    Raises:
      ValueError: an unknown topology or model, no libtpu, or rows that do not divide.
    """
    devices = machines.devices_of(topology)
    kind = devices[0].device_kind
    machine = machines.MACHINES.get(kind)
    if machine is None and not topology.startswith("cpu"):
        known = ", ".join(machines.MACHINES)
        raise ValueError(f"the speed of a {kind} is not known here; those of {known} are")
    model_config = model_config_of(model)
    job = Job.of(config, model_config, devices)
    if response_tokens is None and isinstance(config, RlConfig):
        response_tokens = config.max_new_tokens
    programs = []
    for program in job.programs(response_tokens or 0):
        told(f"compiling: {program.name}")
        programs.append(compiled.measure(program, machine, topology, len(devices), texts))
    return {
        "model": model,
        "objective": "rl" if job.is_rl else "sft",
        "topology": topology,
        "device": kind,
        "devices": len(devices),
        "mesh": {axis: size for axis, size in job.mesh.shape.items() if size > 1},
        "rows": config.rows,
        "row_length": config.row_length,
        "microbatches": config.microbatches,
        "params": model_config.num_params,
        "hbm_bytes": None if machine is None else machine.hbm_gib * machines.GIB,
        "programs": programs,
        **prediction.predict(job, programs, machine, response_tokens or 0),
    }


def model_config_of(model: str) -> ModelConfig:
    """Returns the config of a known size, or that of a checkpoint.

    Raises:
      ValueError: it is neither.
    """
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
