"""Prepares the process of every entry point, and builds mesh and model from a config."""

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
from typing import TYPE_CHECKING, Any

from absl import app, flags, logging

from launch import schema
from launch.parts import endings, help, lock
from launch.parts.command_line import define_config, parse_flags, read_config
from models import processes
from models.host import interruption

if TYPE_CHECKING:  # These import JAX, which must not start before `prepare_backend`.
    from jax.sharding import Mesh

    from models.decoder import LanguageModel

__all__ = [
    "build_mesh", "build_model", "check_accepted", "define_accept_stopped", "define_config",
    "give_overlapping_programs_threads", "keep_compiled", "prepare_backend",
    "programs_may_overlap", "read_config", "run_main", "start_distributed", "working_directory",
]  # fmt: skip

# An environment variable that names the process with the large thread pool. A child process
# inherits the variable, but has a pool of its own.
OVERLAP = "ERGO_OVERLAPPING_PROGRAMS"
CPU_FLAGS = {
    "--xla_cpu_experimental_ynn_fusion_type": "",
    "--xla_cpu_prefer_vector_width": "512",
}


flags.DEFINE_string(
    "distributed",
    "auto",
    "The processes of this job: auto looks for the variables JAX_COORDINATOR_ADDRESS,"
    " JAX_NUM_PROCESSES and JAX_PROCESS_ID, for Slurm, Open MPI and GKE; on lets JAX detect the"
    " cluster (Cloud TPU pods); off is one process; or HOST:PORT,PROCESSES,PROCESS.",
)


flags.DEFINE_float(
    "grace",
    interruption.GRACE_SECONDS,
    "seconds from SIGTERM or SIGINT to the hard end of a job of several processes; within them it"
    " stops at the next possible point and saves. Less than the job's controller waits.",
    lower_bound=1.0,
)


def prepare_backend() -> None:
    """Sets XLA's flags and the CPU backend's allocator; call it before JAX touches a device.

    XLA's YNN fusions, new in jaxlib 0.10, run this project's CPU matrix products at less than half
    the speed of Eigen's. Vectors of 512 bits make decoding faster on a CPU that has them. The flags
    are set for jaxlib 0.10 only, because a flag that XLA does not know aborts the process.

    XLA's CPU backend allocates its temporaries at every step and frees them after it. By default
    glibc returns them to the system, which zeroes them page by page for the next step. This
    function makes glibc keep them. That works only on the calling thread, whose heap can grow while
    those of other threads cannot, so asynchronous dispatch on CPUs is turned off.
    """
    import jax

    with contextlib.suppress(AttributeError):  # Some versions of JAX lack this option.
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


def give_overlapping_programs_threads() -> None:
    """Makes XLA's CPU thread pool large enough to sample while training; before JAX starts.

    Two programs then run on each device at a time, so the fault that `give_virtual_devices_threads`
    describes would occur with one device too.
    """
    found = re.search(
        r"xla_force_host_platform_device_count=(\d+)", os.environ.get("XLA_FLAGS", "")
    )
    threads = 2 * int(found[1] if found else 1) + (os.cpu_count() or 1)
    os.environ["NPROC"] = str(max(threads, int(os.environ.get("NPROC", 0))))
    os.environ[OVERLAP] = str(os.getpid())


def programs_may_overlap() -> bool:
    """Tells whether sampling and training may run at a time in this process."""
    import jax

    return jax.default_backend() != "cpu" or os.environ.get(OVERLAP) == str(os.getpid())


def _keep_freed_memory() -> None:
    """Makes glibc's `malloc` keep up to 2 GiB of freed memory; does nothing without glibc.

    Larger blocks are mapped anew each time. Pages of 2 MiB make that cheap; glibc uses them if the
    process starts with GLIBC_TUNABLES=glibc.malloc.hugetlb=1 (see docs/performance.md).
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError, TypeError):
        return
    trim_threshold, mmap_threshold, most = -1, -3, 2**31 - 1
    mallopt(trim_threshold, most)
    mallopt(mmap_threshold, most)


def run_main(
    main: Callable[[list[str]], None],
    *recipes: type[schema.Recipe],
    positional: bool = False,
    uses_jax: bool = True,
) -> None:
    """Runs an entry point by `app.run`, with the exit codes of `launch.parts.endings`.

    A user's mistake, or a run that stopped itself, gives one line on stderr and no traceback.
    `--help` prints purpose, example, flags and fields (see `launch.parts.help`).

    Args:
      main: gets the command line's arguments that are no flags, after the program's name.
      *recipes: schemas of the configs that the program reads.
      positional: whether there may be such arguments.
      uses_jax: whether to prepare JAX, which takes a second.
    """
    help.print_if_asked(recipes)

    def guarded(argv):
        if not any(arg.startswith(("--verbosity", "-v")) for arg in sys.argv):
            # `app.run` has set INFO, at which Orbax logs every file it writes.
            logging.set_verbosity(logging.WARNING)
        if len(argv) > 1 and not positional:
            raise app.UsageError(f"unexpected argument {argv[1]!r}; options start with --")
        try:
            endings.handle_signals()
            # This imports JAX, so it waits until the flags are known to be right.
            if uses_jax:
                prepare_backend()
            main(argv)
            endings.ignore_signals()
        except endings.Interrupted as interrupted:
            line = f"interrupted: {interrupted}; the same command continues from here"
            print(line, file=sys.stderr)
            endings.leave_interrupted()
        except Exception as error:
            stopping = processes.count() > 1 and interruption.STOPS.reason is not None
            if stopping and not isinstance(error, endings.Stopped):
                # Another process of the job has ended at the signal's hard end.
                print(f"interrupted, then: {' '.join(str(error).split())[:300]}", file=sys.stderr)
                interruption.end(0.0)
            mistake = isinstance(error, (ValueError, OSError, endings.Stopped))
            if not mistake or os.environ.get("ERGO_TRACEBACK"):
                raise
            for mistake in getattr(error, "mistakes", [str(error)]):
                print(f"error: {' '.join(mistake.split())}", file=sys.stderr)
            print("(ERGO_TRACEBACK=1 shows where)", file=sys.stderr)
            sys.exit(endings.FAILED)

    app.run(guarded, flags_parser=parse_flags)


def define_accept_stopped() -> flags.FlagHolder[list[str]]:
    """Defines `--accept_stopped`: the user takes a stopped training's checkpoint as its result."""
    return flags.DEFINE_list(
        "accept_stopped",
        [],
        "stages whose training stopped itself and whose last good checkpoint is their result",
    )


def check_accepted(names: Sequence[str], stages: Sequence[str]) -> None:
    """Raises `ValueError` if `--accept_stopped` names no stage of `stages`."""
    if unknown := [name for name in names if name not in stages]:
        raise ValueError(
            f"--accept_stopped={unknown[0]} is unknown; choose from {', '.join(stages)}"
        )


def start_distributed(mode: str | None = None) -> None:
    """Joins the other processes of the job, if there are any; before JAX touches a device.

    Standard output then belongs to process 0; the others stay silent, except for errors.

    Args:
      mode: see the flag `--distributed`, which is the default.

    Raises:
      ValueError: the variables or the flag are incomplete or malformed.
    """
    import jax

    if mode is None:
        mode = str(flags.FLAGS.distributed) if flags.FLAGS.is_parsed() else "auto"
    arguments = _distributed_arguments(mode, os.environ)
    if arguments is None or jax.distributed.is_initialized():
        return
    # JAX's own service takes SIGTERM away from Python, and lets training steps alone be stopped.
    jax.config.update("jax_enable_preemption_service", False)
    jax.distributed.initialize(**arguments)
    grace = flags.FLAGS.grace if flags.FLAGS.is_parsed() else interruption.GRACE_SECONDS
    interruption.STOPS.watch(grace, lambda line: print(line, file=sys.stderr, flush=True))
    if jax.process_index() != 0:
        sys.stdout = open(os.devnull, "w")  # For as long as the process lives.


def refuse_several(program: str, others: str = "run_sft and run_rl run in several") -> None:
    """Refuses to run a program in several processes that is made for one.

    Each of them would do all the work, ask servers and judges once more, and write the same files.

    Args:
      program: its name.
      others: what runs in several processes, for the error.

    Raises:
      ValueError: flag or variables say that this process is one of several.
    """
    mode = str(flags.FLAGS.distributed) if flags.FLAGS.is_parsed() else "auto"
    arguments = _distributed_arguments(mode, os.environ)
    if arguments is not None and arguments.get("num_processes") != 1:
        raise ValueError(
            f"{program} runs in one process, and this is one of several (--distributed={mode}):"
            f" start it once, with --distributed=off; it uses all devices of its host. {others}"
        )


def _distributed_arguments(mode: str, environ: Mapping[str, str]) -> dict[str, Any] | None:
    """Returns the arguments of `jax.distributed.initialize`; None for a job of one process."""
    if mode == "off":
        return None
    if mode == "on":
        return {}
    if mode == "auto":
        names = ("JAX_COORDINATOR_ADDRESS", "JAX_NUM_PROCESSES", "JAX_PROCESS_ID")
        given = [environ.get(name, "") for name in names]
        if not any(given):
            return {} if _is_cluster(environ) else None
        if not all(given):
            missing = ", ".join(name for name, value in zip(names, given) if not value)
            if given[0] and _is_cluster(environ):
                return {"coordinator_address": given[0]}  # JAX finds the other two.
            raise ValueError(f"{missing} is not set: set all of {', '.join(names)}, or none")
        mode = ",".join(given)
    address, *numbers = mode.split(",")
    if ":" not in address or len(numbers) != 2 or not all(each.isdecimal() for each in numbers):
        raise ValueError(
            f"--distributed={mode}: must be auto, on, off or HOST:PORT,PROCESSES,PROCESS, such as"
            " 10.0.0.1:8476,4,0"
        )
    processes, process = map(int, numbers)
    if process >= processes:
        raise ValueError(f"--distributed={mode}: processes are numbered from 0 to {processes - 1}")
    return {
        "coordinator_address": address,
        "num_processes": processes,
        "process_id": process,
    }


def _is_cluster(environ: Mapping[str, str]) -> bool:
    """Tells whether a scheduler has started several processes, which JAX then finds by itself.

    A Cloud TPU pod without GKE sets no variable; there, use `--distributed=on`.
    """
    sizes = ("SLURM_NTASKS", "OMPI_COMM_WORLD_SIZE")
    several = any(environ.get(name, "1") not in ("", "1") for name in sizes)
    # A shell within a Slurm allocation has SLURM_NTASKS, but only `srun` sets SLURM_PROCID.
    if several and "OMPI_COMM_WORLD_SIZE" not in environ:
        several = "SLURM_PROCID" in environ
    on_tpu = "MEGASCALE_COORDINATOR_ADDRESS" in environ
    on_tpu |= "," in environ.get("TPU_WORKER_HOSTNAMES", "")
    return several or on_tpu or bool(environ.get("ERGO_DISTRIBUTED"))


def keep_compiled(directory: Path) -> None:
    """Keeps compiled programs in `directory`, for later stages, runs and seeds.

    The variable JAX_COMPILATION_CACHE_DIR takes precedence over `directory`.
    """
    import jax

    if not jax.config.jax_compilation_cache_dir:
        path = directory / "compiled" / _processor()
        jax.config.update("jax_compilation_cache_dir", str(path))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.3)


def _processor() -> str:
    """Returns a name for this kind of CPU: a program compiled for one may not run on another."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:  # Not Linux.
        lines = []
    features = [line for line in lines if line.startswith(("flags", "Features"))]
    kind = features[0] if features else platform.processor()
    return hashlib.sha256(kind.encode()).hexdigest()[:8]


def build_model(config: Mapping[str, Any]) -> "LanguageModel":
    """Returns a `LanguageModel` from the fields of `ModelConfig`."""
    from models.config import ModelConfig
    from models.decoder import LanguageModel

    return LanguageModel(ModelConfig(**config))


def build_mesh(config: Any, devices: Sequence[Any] | None = None) -> "Mesh":
    """Returns the mesh over all devices, or over `devices`; also sets the sharding rules.

    Args:
      config: has `mesh`, axis -> size, and `sharding`; see `models.sharding.set_rules`.
      devices: devices of the mesh; None is all.
    """
    from models.sharding import make_mesh, set_rules

    set_rules(config.sharding)
    return make_mesh(dict(config.mesh), devices)


@contextlib.contextmanager
def working_directory(workdir: str, remote: bool = False) -> Iterator[Path]:
    """Creates the working directory and holds it for this run alone (see `launch.parts.lock`).

    The directory also gets a record of the command and the report page (see `launch.parts.record`).

    Args:
      workdir: a folder of this machine, or one of a remote store (see `models.host.storage`).
      remote: whether the program can work in a remote store.

    Yields:
      Its absolute path.

    Raises:
      OSError, ValueError: the directory cannot be made or reached, or another run holds it.
    """
    import jax

    from launch.parts import record
    from models.host import storage

    path = storage.absolute(workdir)
    if storage.is_remote(path) and not remote:
        raise ValueError(
            f"--workdir={workdir}: this program writes to folders of this machine only; run_sft,"
            " run_rl and run_r1 also write to remote ones"
        )
    storage.check_reachable(path)
    storage.make_folder(path)
    with contextlib.ExitStack() as stack:
        if jax.process_index() == 0:  # It holds the lock and writes for all processes.
            stack.enter_context(lock.locked(path))
            stack.enter_context(record.recorded(path))
        yield path
