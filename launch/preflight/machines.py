"""Accelerators that programs can be compiled for, and what their makers say they can do."""

import dataclasses
import os
import re
from collections.abc import Sequence
from typing import Any

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Machine:
    """The published figures of one device.

    Attributes:
      hbm_gib: main memory in GiB.
      flops: bfloat16 operations a second.
      hbm: bytes a second of the main memory.
      link: bytes a second that a device receives over the two links of one axis of the torus.
      axes: axes of the torus.
    """

    hbm_gib: float
    flops: float
    hbm: float
    link: float
    axes: int

    def receive(self, group: int, topology: Sequence[int]) -> float:
        """Returns the bytes a second that a device receives in a group of so many devices.

        A group that is larger than an axis of the machine uses the links of several axes.
        """
        used, reached = 0, 1
        for length in sorted((size for size in topology if size > 1), reverse=True):
            if reached >= group:
                break
            used, reached = used + 1, reached * length
        return self.link * min(max(used, 1), self.axes)


# By JAX's name of the device kind. Google's page on each generation: cloud.google.com/tpu/docs/v5p
# and its neighbours. A link has a sixth (v4, v5p) or a fourth (v5e, v6e) of a chip's bandwidth.
MACHINES = {
    "TPU v4": Machine(32, 275e12, 1228e9, 100e9, 3),
    "TPU v5 lite": Machine(16, 197e12, 819e9, 100e9, 2),
    "TPU v5": Machine(95, 459e12, 2765e9, 200e9, 3),
    "TPU v6 lite": Machine(32, 918e12, 1638e9, 200e9, 2),
}


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


def devices_of(topology: str) -> Sequence[Any]:
    """Returns the devices of a topology, which need not exist.

    Raises:
      ValueError: libtpu is missing, or does not know the topology.
    """
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
            f"--topology={topology!r} is not available: {reason}; run `pip install 'jax[tpu]'`, and"
            " give a name such as v4:2x2x2, v5e:4x4, v5p:4x4x4, v6e:8x8"
        ) from None
