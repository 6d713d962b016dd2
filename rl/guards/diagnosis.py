"""Tells, while RL runs, why it does not learn and what to change.

It reads the metrics of every iteration, compares means over the last few with fixed limits and with
the first iteration, which was sampled by the untrained policy, and says each finding in one line.
"""

import dataclasses
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

# Iterations that a mean covers.
WINDOW = 5
# A learning rate that is too high shows in the first iterations; later drops have other causes.
EARLY = 20
# Iterations that a finding must last to be reported a second time.
AGAIN = 10
# Findings that more training does not mend; they may stop a run.
FATAL = ("learning_rate", "entropy")


@dataclasses.dataclass(frozen=True)
class Finding:
    """Something that is wrong with a run.

    Attributes:
      step: the update after which it showed.
      kind: a short name: `learning_rate`, `too_hard`, `too_easy`, `no_signal`, `truncated`,
        `format_only` or `entropy`.
      message: what was seen, with figures, and the remedy; one line.
    """

    step: int
    kind: str
    message: str


@dataclasses.dataclass(frozen=True)
class Settings:
    """The settings of a run that findings name.

    Attributes:
      prompts: problems of an iteration.
      group: completions of a problem.
      max_new_tokens: limit of a completion.
      temperature: of sampling.
      learning_rate: its peak.
    """

    prompts: int
    group: int
    max_new_tokens: int
    temperature: float
    learning_rate: float


class Diagnosis:
    """A guard (`train.run_log.Guard`) that warns, and stops a run only if it is told to.

    It reports a finding when it first appears, again when it has lasted `AGAIN` iterations, and
    then each time that it has lasted twice as long.

    Args:
      settings: see `Settings`.
      say: called with the line of each reported finding.
      record: called with all findings so far, whenever they change.
      stop: whether findings of the kinds `FATAL` stop the run.
    """

    def __init__(
        self,
        settings: Settings,
        say: Callable[[str], None] = print,
        record: Callable[[Sequence[Finding]], None] = lambda findings: None,
        stop: bool = False,
    ):
        self._settings, self._say, self._record, self._stop = settings, say, record, stop
        self.findings: list[Finding] = []
        self._iterations = 0
        self._first: dict[str, float] = {}
        self._recent: list[dict[str, float]] = []
        # Kind -> iterations in which it has shown, and how many it takes to tell it again.
        self._shown: dict[str, int] = {}
        self._next: dict[str, int] = {}

    def update(self, step: int, metrics: Mapping[str, float]) -> str | None:
        """Takes the metrics of an iteration; returns why the run should stop, or None."""
        finite = {name: float(x) for name, x in metrics.items() if math.isfinite(x)}
        self._iterations += 1
        self._first = self._first or finite
        self._recent = [*self._recent, finite][-WINDOW:]
        reason = None
        for kind, message in self._look():
            self._shown[kind] = self._shown.get(kind, 0) + 1
            if self._shown[kind] < self._next.get(kind, 1):
                continue
            self._next[kind] = max(AGAIN, 2 * self._shown[kind])
            finding = Finding(step, kind, message)
            self.findings.append(finding)
            self._record(self.findings)
            self._say(f"step {step}: {message}")
            if self._stop and kind in FATAL:
                reason = reason or message
        return reason

    def _look(self) -> Iterator[tuple[str, str]]:
        """Yields (kind, message) for everything that the latest iterations show."""
        yield from self._learning_rate()
        if len(self._recent) == WINDOW:
            yield from self._signal()
            yield from self._truncated()
            yield from self._format_only()
            yield from self._entropy()

    def _learning_rate(self) -> Iterator[tuple[str, str]]:
        """Looks for a policy that its first updates have damaged."""
        if not 3 <= self._iterations <= EARLY or "reward" not in self._first:
            return
        # The standard error of the difference between one iteration and the mean of three. Samples
        # of a group are alike, so the number of problems decides it.
        before, now = self._first["reward"], self._mean("reward", 3)
        error = self._first.get("reward_std", 0.0) * math.sqrt(4 / 3 / self._settings.prompts)
        fell = now < 0.5 * before and before - now > 3 * error
        collapsed = now < 0.15 * before and before - now > 1.5 * error
        entropy, noise = self._first.get("entropy", 0.0), self._mean("entropy", 3)
        wild = entropy > 0 and noise > 2 * entropy and noise > 1.0 and now <= before
        if not (fell or collapsed or wild):
            return
        rate = self._settings.learning_rate
        seen = (
            f"the reward fell from {before:.3g} to {now:.3g}"
            if fell or collapsed
            else f"the entropy rose from {entropy:.3g} to {noise:.3g} nats a token"
        )
        yield (
            "learning_rate",
            f"{seen} in the first {self._iterations} iterations, so updates damage the policy: the"
            f" learning rate of {rate:g} is too high; set optimizer.learning_rate={rate / 10:g}, or"
            " add optimizer.warmup_steps",
        )

    def _signal(self) -> Iterator[tuple[str, str]]:
        """Looks for groups whose rewards are equal, which teach nothing."""
        silent = self._mean("zero_advantage_groups")
        wrong, right = self._mean("groups_all_wrong"), self._mean("groups_all_right")
        of = f"of {self._settings.group} answers"
        if wrong >= 0.7:
            yield (
                "too_hard",
                f"in {wrong:.0%} of the groups {of} all were wrong: the problems are too hard, or"
                " the answers are not recognised (see samples.jsonl); take easier problems, show"
                " worked examples in the prompt, fine-tune first, raise group, or set"
                " adaptive_sampling=problem",
            )
        elif right >= 0.7:
            yield (
                "too_easy",
                f"in {right:.0%} of the groups {of} all were right, and they teach nothing: take"
                " harder problems, or set adaptive_sampling=problem or dynamic_sampling=true",
            )
        elif silent >= 0.7:
            yield (
                "no_signal",
                f"in {silent:.0%} of the groups {of} all had the same reward, and they teach"
                f" nothing (mean reward {self._mean('reward'):.3g}): see samples.jsonl for the"
                " scores and their reasons, raise temperature or group, or take another reward",
            )

    def _truncated(self) -> Iterator[tuple[str, str]]:
        """Looks for answers that were cut off before their end."""
        cut, limit = self._mean("truncated"), self._settings.max_new_tokens
        if cut >= 0.5:
            yield (
                "truncated",
                f"{cut:.0%} of the answers were cut off at max_new_tokens={limit}, so most could"
                f" not be graded as a whole: set max_new_tokens={2 * limit}, ask for shorter"
                " answers in the prompt, or add the reward overlong; if the model never ends its"
                " answers, fine-tune it first",
            )

    def _format_only(self) -> Iterator[tuple[str, str]]:
        """Looks for a policy that earns the reward for format and none for accuracy."""
        if "format" not in self._first or "accuracy" not in self._first:
            return
        formed, right = self._mean("format"), self._mean("accuracy")
        if formed >= 0.7 and right <= 0.05:
            yield (
                "format_only",
                f"{formed:.0%} of the answers have the right format but {right:.1%} are right, so"
                " only format is learned: lower the weight of format, take easier problems, or"
                " check how answers are graded (see samples.jsonl)",
            )

    def _entropy(self) -> Iterator[tuple[str, str]]:
        """Looks for a policy that stops exploring before it solves the problems."""
        before, now = self._first.get("entropy", 0.0), self._mean("entropy")
        solved = self._mean("groups_all_right") >= 0.7 or self._mean("accuracy") >= 0.9
        if before > 0.02 and now < 0.1 * before and not solved:
            silent = self._mean("zero_advantage_groups")
            if silent < 0.5:  # Still enough groups that differ: a policy that becomes sure.
                return
            yield (
                "entropy",
                f"the entropy fell from {before:.3g} to {now:.3g} nats a token and {silent:.0%} of"
                " the groups teach nothing: the answers to a problem are all alike; lower the"
                f" learning rate, raise temperature (now {self._settings.temperature:g}), take"
                " variant=dapo, which clips higher, or set loss.beta",
            )

    def _mean(self, name: str, iterations: int = WINDOW) -> float:
        """Returns the mean of a metric over the latest iterations that have it; 0 if none has."""
        values = [each[name] for each in self._recent[-iterations:] if name in each]
        return sum(values) / len(values) if values else 0.0

    def state_dict(self) -> dict[str, Any]:
        """Returns all that later calls depend on, JSON-able."""
        return {
            "iterations": self._iterations,
            "first": dict(self._first),
            "recent": [dict(each) for each in self._recent],
            "shown": dict(self._shown),
            "next": dict(self._next),
            "findings": [dataclasses.asdict(each) for each in self.findings],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continues where `state_dict` was taken."""
        self._iterations = int(state["iterations"])
        self._first = {name: float(x) for name, x in state["first"].items()}
        self._recent = [{k: float(x) for k, x in each.items()} for each in state["recent"]]
        self._shown = {kind: int(x) for kind, x in state["shown"].items()}
        self._next = {kind: int(x) for kind, x in state["next"].items()}
        self.findings = [Finding(**each) for each in state["findings"]]
        self._record(self.findings)
