"""Describes a run's machine for its report: the results of a seed depend on it."""

import os
import platform
from pathlib import Path
from typing import Any

import jax


def describe() -> dict[str, Any]:
    """Returns what the figures and weights of a run depend on besides its config.

    Returns:
      `processor`: the CPU's name. `cores`: the number that this process may use. `threads`: the
      number among which XLA divides sums on a CPU. It changes the last bits of the sums, so
      another machine of this kind gives the same weights only with the same number (set by the
      variable NPROC). `devices`: their number and kind. `jax`: its version.
    """
    try:
        cores = len(os.sched_getaffinity(0))
    except AttributeError:  # Not Linux.
        cores = os.cpu_count() or 1
    threads = os.environ.get("NPROC", "")
    return {
        "processor": _processor(),
        "cores": cores,
        "threads": int(threads) if threads.isdecimal() else cores,
        "devices": f"{jax.device_count()} x {jax.devices()[0].device_kind}",
        "jax": jax.__version__,
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # Not Linux.
        lines = []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
