"""Stops a run whose reward, format or entropy has collapsed."""

import dataclasses
import math
from collections.abc import Mapping
from typing import Any


@dataclasses.dataclass(frozen=True)
class CliffRule:
    """Defines when a metric has collapsed: its smoothed value has lost most of its greatest height.

    The height is measured above `floor`, so that rewards with penalties may be negative.

    Attributes:
      keep: the metric has collapsed if its smoothed height is below `keep` times the greatest one
        so far.
      min_height: the rule applies only after the smoothed height has reached this, because noise
        around nothing is no collapse.
      floor: the lowest value that makes sense for the metric.

    Raises:
      ValueError: a value is out of range.
    """

    keep: float = 0.5
    min_height: float = 0.2
    floor: float = 0.0

    def __post_init__(self) -> None:
        if not 0 < self.keep < 1 or not self.min_height > 0 or not math.isfinite(self.floor):
            raise ValueError(
                f"{self}: keep must lie between 0 and 1, min_height must be positive and floor"
                " must be finite"
            )


# Entropy (nats per token) falls in every healthy run as the policy becomes sure of its answers,
# often to a tenth. Only an entropy near zero stops exploration.
DEFAULT_RULES = {
    "reward": CliffRule(),
    "format": CliffRule(),
    "entropy": CliffRule(keep=0.02, min_height=0.05),
}


class CollapseGuard:
    """Watches metrics of a run and says in words when one has collapsed.

    It smooths each metric by an exponential moving average, which starts at the mean of the first
    `warmup` values, and compares it with the highest average so far. A collapse is an average that
    stays below its rule's threshold for `patience` updates in a row, so one bad batch does not stop
    the run. A value that is not finite stops it at once.

    Args:
      rules: metric name -> `CliffRule`; every update must have all these metrics.
      halflife: the number of updates after which a value's weight in the average has halved.
      warmup: the number of updates before the first comparison.
      patience: the number of consecutive updates below the threshold that make a collapse.

    Raises:
      ValueError: a number is out of range.
    """

    def __init__(
        self,
        rules: Mapping[str, CliffRule] = DEFAULT_RULES,
        halflife: float = 5.0,
        warmup: int = 5,
        patience: int = 3,
    ):
        if not halflife > 0 or warmup < 1 or patience < 1:
            raise ValueError(
                f"halflife={halflife}, warmup={warmup}, patience={patience}: give halflife > 0,"
                " warmup >= 1 and patience >= 1"
            )
        self._rules = dict(rules)
        self._decay = 0.5 ** (1.0 / halflife)
        self._warmup, self._patience = warmup, patience
        self._updates = 0
        self._watched = {
            name: {"average": 0.0, "best": rule.floor, "best_step": -1, "below": 0}
            for name, rule in self._rules.items()
        }

    def update(self, step: int, metrics: Mapping[str, float]) -> str | None:
        """Takes the metrics of one step; returns why the run should stop, or None.

        Raises:
          ValueError: a watched metric is missing.
        """
        missing = [name for name in self._rules if name not in metrics]
        if missing:
            raise ValueError(
                f"the collapse guard watches {missing[0]!r}, which is not among the metrics"
                f" {', '.join(sorted(metrics))}: report it, or give the guard other rules"
            )
        self._updates += 1
        reasons = [self._update_one(name, step, float(metrics[name])) for name in self._rules]
        return "; ".join(filter(None, reasons)) or None

    def _update_one(self, name, step, value):
        if not math.isfinite(value):
            return f"{name} is {value} at step {step}"
        rule, watched = self._rules[name], self._watched[name]
        # This is the running mean during warmup, and the exponential average after it.
        decay = 1 - 1 / self._updates if self._updates <= self._warmup else self._decay
        watched["average"] = decay * watched["average"] + (1 - decay) * value
        if self._updates < self._warmup:
            return None
        if watched["average"] > watched["best"]:
            watched["best"], watched["best_step"] = watched["average"], int(step)
        height, best_height = watched["average"] - rule.floor, watched["best"] - rule.floor
        collapsed = best_height >= rule.min_height and height < rule.keep * best_height
        watched["below"] = watched["below"] + 1 if collapsed else 0
        if watched["below"] < self._patience:
            return None
        above = f" above {rule.floor:g}" if rule.floor else ""
        return (
            f"{name} collapsed: its moving average fell from {watched['best']:.3g} at step"
            f" {watched['best_step']} to {watched['average']:.3g} at step {step}, and less than"
            f" {rule.keep:.0%} of its best height{above} is left"
        )

    def state_dict(self) -> dict[str, Any]:
        """Returns all that `update` depends on, as JSON-able floats and ints of full precision."""
        return {
            "updates": self._updates,
            "watched": {name: dict(watched) for name, watched in self._watched.items()},
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues from the state that `state_dict` returned.

        Raises:
          ValueError: the state is from a guard that watched other metrics.
        """
        if set(state["watched"]) != set(self._rules):
            raise ValueError(
                f"the saved collapse guard watched {', '.join(sorted(state['watched']))}, this one"
                f" watches {', '.join(sorted(self._rules))}: resume with the rules of the saved one"
            )
        self._updates = int(state["updates"])
        for name, saved in state["watched"].items():
            self._watched[name] = {
                "average": float(saved["average"]),
                "best": float(saved["best"]),
                "best_step": int(saved["best_step"]),
                "below": int(saved["below"]),
            }
