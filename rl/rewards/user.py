"""A user's own reward, given as `path/to/my_rewards.py:fn`."""

import dataclasses
import functools
import importlib.util
import inspect
import sys
from collections.abc import Callable
from pathlib import Path

from reasoning.problem import Problem
from rl.rewards import RewardResult


@dataclasses.dataclass(frozen=True)
class UserReward:
    """`fn(prompt, completion, problem)` of a Python file; returns a number or a `RewardResult`.

    Holds the place only, so that it pickles: each process loads the file for itself, once. The file
    may import its neighbours.

    Attributes:
      path: the file, made absolute.
      function: its function.

    Raises:
      ValueError: no such file or function, the file does not load, or the function cannot be called
        with (prompt, completion, problem).
    """

    path: str
    function: str

    def __post_init__(self):
        object.__setattr__(self, "path", str(Path(self.path).expanduser().resolve()))
        function = _load(self.path, self.function)
        try:
            inspect.signature(function).bind("prompt", "completion", "problem")
        except TypeError:
            raise ValueError(
                f"reward {self.path}:{self.function}{inspect.signature(function)} cannot be called"
                " with (prompt, completion, problem): give it these three arguments"
            ) from None

    def __call__(self, prompt: str, completion: str, problem: Problem) -> RewardResult:
        result = _load(self.path, self.function)(prompt, completion, problem)
        score, reason = (
            (result.score, result.reason) if isinstance(result, RewardResult) else (result, "")
        )
        if not hasattr(score, "__float__"):  # NumPy scalars have it, text and None have not.
            raise TypeError(f"it returned {result!r}: return a number or a RewardResult")
        return RewardResult(float(score), reason)


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
    except (Exception, SystemExit) as error:
        del sys.modules[path]
        told = f"it calls sys.exit({error})" if isinstance(error, SystemExit) else error
        raise ValueError(
            f"reward file {path} does not load: {type(error).__name__}: {told}"
        ) from error
    function = getattr(module, name, None)
    if not callable(function):
        functions = [n for n, v in vars(module).items() if inspect.isfunction(v)]
        raise ValueError(
            f"reward file {path} has no function {name!r}: it has {', '.join(functions) or 'none'}"
        )
    return function
