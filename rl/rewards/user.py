"""Runs a user's own reward function, given as `path/to/my_rewards.py:fn`."""

import dataclasses
import functools
import importlib.util
import inspect
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from reasoning.problem import Problem
from reasoning.workers.pool import WorkerPool
from rl.rewards import RewardResult

# Time limit in seconds for loading a file with all its imports.
LOAD_SECONDS = 120.0
# Address space in MiB of a process that evaluates rewards.
WORKER_MEMORY_MB = 1024


@dataclasses.dataclass(frozen=True)
class UserReward:
    """`fn(prompt, completion, problem)` of a Python file; returns a number or a `RewardResult`.

    The object holds only the path and the name, which can be sent to a worker. Each worker process
    loads the file once for itself. The training process never loads it, because a file may exit,
    crash or hang. The file may import its neighbours.

    Attributes:
      path: the file; it becomes an absolute path.
      function: name of the function in the file.

    Raises:
      ValueError: if there is no such file or function, the file does not load, or the function
        does not accept (prompt, completion, problem).
    """

    path: str
    function: str

    def __post_init__(self) -> None:
        object.__setattr__(self, "path", str(Path(self.path).expanduser().resolve()))
        if fault := _fault_of(self.path, self.function):
            raise ValueError(fault)

    def __call__(self, prompt: str, completion: str, problem: Problem) -> RewardResult:
        """Rewards one completion."""
        result = _load(self.path, self.function)(prompt, completion, problem)
        score, reason = (
            (result.score, result.reason) if isinstance(result, RewardResult) else (result, "")
        )
        if not hasattr(score, "__float__"):  # NumPy scalars have it, text and None have not.
            raise TypeError(f"it returned {result!r}: return a number or a RewardResult")
        try:
            return RewardResult(float(score), reason)
        except OverflowError:
            raise ValueError("it returned an integer that is too large for a float") from None

    def place(self, error: BaseException) -> str:
        """Returns a space and `(at FILE:LINE)`, the last line in the user's folder that failed."""
        return _place(error, self.path)


def _place(error: BaseException, path: str) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    folder = str(Path(path).parent) + "/"
    own = [f for f in frames if f.filename == path] or [
        f for f in frames if f.filename.startswith(folder)
    ]
    return f" (at {own[-1].filename}:{own[-1].lineno})" if own else ""


def _fault_of(path: str, function: str) -> str | None:
    """Returns the fault of a reward's file, or None; checks it in a process that may die."""
    if not Path(path).is_file():
        return f"reward file {path} does not exist: check the path"
    with WorkerPool(
        _inspect,
        1,
        LOAD_SECONDS,
        memory_mb=WORKER_MEMORY_MB,
        on_timeout=f"reward file {path} does not load within {LOAD_SECONDS:g} s",
        on_crash=f"reward file {path} does not load: it ended the process that loaded it, perhaps"
        f" for more memory than {WORKER_MEMORY_MB} MiB",
    ) as pool:
        return pool(path, function)


def _inspect(path: str, name: str) -> str | None:
    """Runs in a worker: loads the file and looks at the function's arguments."""
    try:
        function = _load(path, name)
    except ValueError as error:
        return str(error)
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # A function written in C may have none.
        return None
    try:
        signature.bind("prompt", "completion", "problem")
    except TypeError:
        return (
            f"reward {path}:{name}{signature} cannot be called with (prompt, completion, problem):"
            " give it these three arguments"
        )
    return None


@functools.cache
def _load(path: str, name: str) -> Callable:
    file = Path(path)
    if not file.is_file():
        raise ValueError(f"reward file {path} does not exist: check the path")
    if str(file.parent) not in sys.path:
        sys.path.append(str(file.parent))  # Last, so that it hides no module.
    spec = importlib.util.spec_from_file_location(path, file)
    if spec is None:
        raise ValueError(f"reward file {path} is not a Python file: its name must end in .py")
    module = sys.modules[path] = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except SystemExit as error:
        raise ValueError(
            f"reward file {path} does not load: it calls sys.exit({error.code!r})"
            f"{_place(error, path)}; a file of rewards must only define them"
        ) from None
    except Exception as error:
        raise ValueError(
            f"reward file {path} does not load: {type(error).__name__}: {error}"
            f"{_place(error, path)}"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        functions = [n for n, v in vars(module).items() if inspect.isfunction(v)]
        raise ValueError(
            f"reward file {path} has no function {name!r}: it has {', '.join(functions) or 'none'}"
        )
    return function
