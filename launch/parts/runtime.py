"""What every entry point does before JAX starts, and the objects they build from a config."""

import contextlib
import ctypes
import hashlib
import importlib.metadata
import os
import platform
import re
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags, logging

from launch.parts import endings, lock
from launch.parts.command_line import define_config, parse_flags, read_config

__all__ = [
    "build_mesh", "build_model", "check_accepted", "define_accept_stopped", "define_config",
    "keep_compiled", "prepare_backend", "read_config", "run_main", "start_distributed",
    "working_directory",
]  # fmt: skip

CPU_FLAGS = {
    "--xla_cpu_experimental_ynn_fusion_type": "",
    "--xla_cpu_prefer_vector_width": "512",
}


def prepare_backend() -> None:
    """Sets XLA flags, and the allocator for the CPU backend; call before JAX touches a device.

    XLA's YNN fusions, new in jaxlib 0.10, run this project's CPU matrix products at less than half
    the speed of Eigen's. Vectors of 512 bits, where a CPU has them, make decoding faster.
    A flag that XLA does not know would abort the process.

    XLA's CPU backend allocates its temporaries at every step and frees them after it. By default
    glibc returns them to the system, which zeroes them page by page for the next step. Here they
    are kept, which needs steps to run on the calling thread, whose heap can grow as those of other
    threads cannot: nothing is dispatched asynchronously on a CPU.
    """
    import jax

    with contextlib.suppress(AttributeError):  # Of a JAX that has no such option.
        jax.config.update("jax_cpu_enable_async_dispatch", False)
    _keep_freed_memory()

    flags = os.environ.get("XLA_FLAGS", "")
    give_virtual_devices_threads(flags)
    if importlib.metadata.version("jaxlib").startswith("0.10."):
        for flag, value in CPU_FLAGS.items():
            if flag not in flags:
                flags = f"{flags} {flag}={value}".strip()
        os.environ["XLA_FLAGS"] = flags


def give_virtual_devices_threads(flags: str) -> None:
    """Makes XLA's CPU thread pool larger than the number of virtual devices; before JAX starts.

    A program that runs on a device keeps one thread of the pool busy until it ends. Its matrix
    products leave tasks in the pool's queues of 1,024 entries, which the other threads empty. Where
    every thread is kept busy by a program, a queue fills up after about 1,000 products; XLA's
    products (those of Eigen) are then wrong, without an error. `models.decoding.sampler` ran into
    this with two programs at a time on two cores.
    `tests/models/test_wide_numerics.py` shows both cases.

    Args:
      flags: XLA's flags, which name the number of virtual devices if there are any.
    """
    found = re.search(r"xla_force_host_platform_device_count=(\d+)", flags)
    if found and int(found[1]) > 1:
        os.environ.setdefault("NPROC", str(int(found[1]) + (os.cpu_count() or 1)))


def _keep_freed_memory() -> None:
    """Has glibc's `malloc` keep what is freed, up to 2 GiB; other allocators are left alone."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    trim_threshold, mmap_threshold, most = -1, -3, 2**31 - 1
    mallopt(trim_threshold, most)
    mallopt(mmap_threshold, most)


def run_main(main: Callable[[list[str]], None]) -> None:
    """`app.run` for entry points, with the exit codes of `launch.parts.endings`.

    A user's mistake, and a run that stopped itself, are one line on stderr, not a traceback.
    """

    def guarded(argv):
        if not any(arg.startswith(("--verbosity", "-v")) for arg in sys.argv):
            # `app.run` has set INFO, at which Orbax logs every file it writes.
            logging.set_verbosity(logging.WARNING)
        if len(argv) > 1:
            raise app.UsageError(f"unexpected argument {argv[1]!r}; options start with --")
        try:
            endings.handle_signals()
            prepare_backend()  # Imports JAX: not for --help, nor before flags are known to be right.
            main(argv)
            endings.ignore_signals()
        except endings.Interrupted as interruption:
            line = f"interrupted: {interruption}; the same command goes on from here"
            print(line, file=sys.stderr)
            endings.leave_interrupted()
        except (ValueError, OSError, endings.Stopped) as error:
            if os.environ.get("ERGO_TRACEBACK"):
                raise
            for mistake in getattr(error, "mistakes", [str(error)]):
                print(f"error: {' '.join(mistake.split())}", file=sys.stderr)
            print("(ERGO_TRACEBACK=1 shows where)", file=sys.stderr)
            sys.exit(endings.FAILED)

    app.run(guarded, flags_parser=parse_flags)


def define_accept_stopped() -> flags.FlagHolder[list[str]]:
    """Defines the option by which a user takes what a stopped training left for its result."""
    return flags.DEFINE_list(
        "accept_stopped",
        [],
        "stages whose training stopped itself and whose last good checkpoint is their result",
    )


def check_accepted(names: Sequence[str], stages: Sequence[str]) -> None:
    """Raises `ValueError` where `--accept_stopped` names something that is no stage."""
    if unknown := [name for name in names if name not in stages]:
        raise ValueError(f"--accept_stopped={unknown[0]} is unknown; choose of {', '.join(stages)}")


def start_distributed() -> None:
    """Joins the other processes of a pod or cluster, where there are any."""
    import jax

    if os.environ.get("ERGO_DISTRIBUTED") or "MEGASCALE_COORDINATOR_ADDRESS" in os.environ:
        jax.distributed.initialize()


def keep_compiled(directory: Path) -> None:
    """Keeps compiled programs in `directory`, for later stages, runs and seeds that need the same.

    Where JAX_COMPILATION_CACHE_DIR says so, they are kept there instead.
    """
    import jax

    if not jax.config.jax_compilation_cache_dir:
        path = directory / "compiled" / _processor()
        jax.config.update("jax_compilation_cache_dir", str(path))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def _processor() -> str:
    """A name for this kind of CPU: what was compiled for one may not run on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # Not Linux.
        lines = []
    features = [line for line in lines if line.startswith(("flags", "Features"))]
    kind = features[0] if features else platform.processor()
    return hashlib.sha256(kind.encode()).hexdigest()[:8]


def build_model(config: Mapping[str, Any]):
    """A `LanguageModel` from the fields of `ModelConfig`."""
    from models.config import ModelConfig
    from models.decoder import LanguageModel

    return LanguageModel(ModelConfig(**config))


def build_mesh(config: Any, devices: Sequence[Any] | None = None):
    """The mesh over all devices, or these; the config's sharding rules hold from here on.

    Args:
      config: has `mesh`, axis -> size, and `sharding`; see `models.sharding.set_rules`.
    """
    from models.sharding import make_mesh, set_rules

    set_rules(config.sharding)
    return make_mesh(dict(config.mesh), devices)


@contextlib.contextmanager
def working_directory(workdir: str) -> Iterator[Path]:
    """The working directory, created, and held for this run alone (see `launch.parts.lock`).

    Raises:
      OSError, ValueError: it cannot be made, or another run has it.
    """
    import jax

    path = Path(workdir).expanduser().resolve()
    path.mkdir(parents=True, exist_ok=True)
    # One process of a job holds it for all.
    with lock.locked(path) if jax.process_index() == 0 else contextlib.nullcontext():
        yield path
