"""Compiles one program for devices that are not at hand, and measures what it says about itself."""

import re
import time
from pathlib import Path
from typing import Any

import jax

from launch.preflight import cost, hlo
from launch.preflight.machines import Machine
from launch.preflight.programs import Program

# The text of a program cannot be read where collectives are fused with other work over several
# instructions, so they are not. Their time and memory hardly differ.
TPU_OPTIONS = {"xla_tpu_enable_async_collective_fusion": False}


def measure(
    program: Program,
    machine: Machine | None,
    topology: str,
    devices: int,
    texts: Path | None = None,
) -> dict[str, Any]:
    """Compiles a program; returns its figures on one device, JSON-able.

    A program that does not fit has no figures but its peak memory, which the compiler's error
    states.

    Args:
      machine: the device; None for a CPU, for which no time is predicted.
      topology: such as v5p:4x4x4.
      devices: how many devices there are.
      texts: a folder for the text of the compiled program.
    """
    start = time.monotonic()
    held = sum(program.held.values())
    row: dict[str, Any] = {"name": program.name, "runs": program.runs, "held": dict(program.held)}
    row |= {"arguments": dict(program.arguments), "temporaries": dict(program.temporaries)}
    options = None if topology.startswith("cpu") else TPU_OPTIONS
    try:
        compiled = program.lower().compile(compiler_options=options)
    except jax.errors.JaxRuntimeError as error:
        temporaries = temporary_bytes(str(error))
        if temporaries is None:
            raise
        row |= {
            "compile_seconds": time.monotonic() - start,
            "temporary_bytes": temporaries,
            "peak_bytes": sum(program.arguments.values()) + temporaries + held,
            "cost": None,
        }
        return row
    used = compiled.memory_analysis()
    results = used.output_size_in_bytes - used.alias_size_in_bytes
    row |= {
        "compile_seconds": time.monotonic() - start,
        "temporary_bytes": used.temp_size_in_bytes,
        "results_bytes": results,
        "peak_bytes": used.argument_size_in_bytes + used.temp_size_in_bytes + results + held,
    }
    try:
        text = compiled.as_text()
    except jax.errors.JaxRuntimeError as error:
        # JAX may know fewer instructions than the compiler: then memory is all that is known.
        return row | {"cost": None, "unread": " ".join(str(error).split())[:200]}
    if texts is not None:
        texts.mkdir(parents=True, exist_ok=True)
        (texts / f"{program.name.replace(' ', '_')}.hlo").write_text(text)
    module = hlo.parse(text)
    counted = cost.count(module, program.loops, devices)
    row["cost"] = {
        "flops": counted.flops,
        "bytes": counted.bytes,
        "collectives": counted.by_kind(),
        "kernels": dict(counted.kernels),
        "loops_taken_for": counted.unknown_loops,
    }
    if machine is not None:
        shape = [int(size) for size in topology.partition(":")[2].split("x")]
        row["seconds"] = seconds = {
            "compute": counted.flops / machine.flops,
            "memory": counted.bytes / machine.hbm,
            "links": sum(each.moved / machine.receive(each.group, shape)
                         for each in counted.collectives),
        }  # fmt: skip
        row["bound_by"] = max(seconds, key=lambda name: seconds[name])
    return row


def temporary_bytes(message: str) -> int | None:
    """Reads from the TPU compiler's error how many bytes of temporaries a program needs."""
    found = re.search(r"HLO temporaries \(([\d.]+)([KMGT])\) exceeds available HBM", message)
    return int(float(found[1]) * 1024 ** ("KMGT".index(found[2]) + 1)) if found else None
