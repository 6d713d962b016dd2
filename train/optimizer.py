"""Makes optimizers and learning-rate schedules from a config, with rules by parameter path.

The update of a parameter p with gradient g, clipped to a global norm, at step t is

    p  <-  p - lr(t) * lr_multiplier * (direction(g) + weight_decay * decay_multiplier * p)

with the direction of Adam, Muon, Adafactor, Lion or momentum: weight decay is decoupled
(arXiv:1711.05101) for all of them. Frozen parameters have neither gradients nor state.
"""

import dataclasses
import inspect
import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from flax.traverse_util import flatten_dict, unflatten_dict
from optax.contrib import MuonDimensionNumbers

SCHEDULES = ("constant", "linear", "cosine", "wsd")

# A rule with this pattern applies to the parameters that no other rule matches.
REST = "rest"

Rules = tuple[tuple[str, float], ...]


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
    """An optimizer, its schedule and its per-parameter rules.

    Rules are pairs (regular expression, multiplier). An expression must match a whole path such
    as `layers/attention/q/kernel`. Every parameter must match exactly one rule, and every rule must
    match some parameter. The pattern "rest" matches all parameters that no other rule matches.

    Attributes:
      name: a key of `DIRECTIONS`.
      learning_rate: the peak of the learning rate.
      schedule: the course after the warm-up: `constant`; `linear` or `cosine` decay until the last
        step; `wsd`, constant and then linear decay in the last `decay_steps` (arXiv:2404.06395).
      warmup_steps: steps in which the learning rate rises linearly to its peak.
      decay_steps: steps of decay; `wsd` needs it, other schedules do not take it.
      final_fraction: share of the peak that decay ends at; not for `constant`.
      clip_norm: largest global norm of the gradient; None does not clip.
      weight_decay: decoupled, in units of the learning rate.
      lr_rules: multipliers of the learning rate; 0 freezes.
      decay_rules: multipliers of the weight decay.
      direction: keyword arguments of the function in `DIRECTIONS`.
    """

    name: str = "adamw"
    learning_rate: float = 1e-3
    schedule: str = "constant"
    warmup_steps: int = 0
    decay_steps: int | None = None
    final_fraction: float | None = None
    clip_norm: float | None = 1.0
    weight_decay: float = 0.0
    lr_rules: Rules = ((REST, 1.0),)
    decay_rules: Rules = ((r".*/(scale|bias)", 0.0), (REST, 1.0))
    direction: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    @classmethod
    def from_mapping(cls, mapping: Mapping[str, Any]) -> "OptimizerConfig":
        """Returns a config from a flat mapping of fields and the direction's arguments.

        Example: `dict(name="adamw", learning_rate=3e-4, schedule="cosine", b2=0.95)`.
        """
        fields = {f.name for f in dataclasses.fields(cls)} - {"direction"}
        known = {key: value for key, value in mapping.items() if key in fields}
        return cls(**known, direction={k: v for k, v in mapping.items() if k not in fields})

    def __post_init__(self) -> None:
        if self.name not in DIRECTIONS:
            raise ValueError(f"unknown optimizer {self.name!r}: choose {_list(DIRECTIONS)}")
        arguments = inspect.signature(DIRECTIONS[self.name]).parameters
        for key in self.direction:
            if key not in arguments:
                fields = sorted({f.name for f in dataclasses.fields(self)} - {"direction"})
                raise ValueError(
                    f"optimizer {self.name!r} has no setting {key!r}: its own are"
                    f" {_list(arguments)}; those of every optimizer {_list(fields)}"
                )
        if self.schedule not in SCHEDULES:
            raise ValueError(f"unknown schedule {self.schedule!r}: choose {_list(SCHEDULES)}")
        if not self.learning_rate > 0:
            raise ValueError(f"learning_rate={self.learning_rate}: it must be positive")
        if self.clip_norm is not None and not self.clip_norm > 0:
            raise ValueError(f"clip_norm={self.clip_norm}: it must be positive, or None")
        if (self.schedule == "wsd") != (self.decay_steps is not None):
            raise ValueError(
                f"decay_steps={self.decay_steps} with schedule {self.schedule!r}: it is for"
                " 'wsd', and needed there"
            )
        if self.schedule == "constant" and self.final_fraction is not None:
            raise ValueError("final_fraction is set but schedule 'constant' does not decay")


def learning_rate_schedule(config: OptimizerConfig, num_steps: int) -> Callable[[Any], jax.Array]:
    """Returns a traceable function from the step, 0 to num_steps - 1, to the learning rate.

    Warm-up step t has the rate peak * (t + 1) / warmup_steps, so no step is lost at a rate of zero.
    Decay would reach `final_fraction` at step `num_steps`.

    Raises:
      ValueError: warm-up and decay do not fit in `num_steps`.
    """
    warmup, final = config.warmup_steps, config.final_fraction or 0.0
    decay = (config.decay_steps or 0) if config.schedule == "wsd" else num_steps - warmup
    if warmup < 0 or decay < 1 or warmup + decay > num_steps:
        raise ValueError(
            f"warmup_steps={warmup} and decay_steps={config.decay_steps} do not fit in a run"
            f" of {num_steps} steps"
        )

    def schedule(step):
        step = jnp.asarray(step, jnp.float32)
        rise = jnp.minimum(1.0, (step + 1) / warmup) if warmup else 1.0
        progress = jnp.clip((step - (num_steps - decay)) / decay, 0.0, 1.0)
        if config.schedule == "constant":
            fall = 1.0
        elif config.schedule == "cosine":
            fall = final + (1 - final) * 0.5 * (1 + jnp.cos(jnp.pi * progress))
        else:
            fall = 1 - (1 - final) * progress
        return jnp.asarray(config.learning_rate * rise * fall, jnp.float32)

    return schedule


@dataclasses.dataclass(frozen=True)
class Optimizer:
    """The parts of an optimizer that a train step needs; made by `make_optimizer`.

    Attributes:
      direction: optax transformation of the clipped gradients of the trainable parameters.
      schedule: learning rate by step.
      clip_norm: see `OptimizerConfig`.
      lr_multipliers: path -> multiplier of the learning rate; 0 freezes the parameter.
      weight_decays: path -> weight decay.
    """

    direction: optax.GradientTransformation
    schedule: Callable[[Any], jax.Array]
    clip_norm: float | None
    lr_multipliers: Mapping[str, float]
    weight_decays: Mapping[str, float]

    def split(self, params: Any) -> tuple[Any, Any]:
        """Splits `params` into a pytree of trainable ones and a pytree of frozen ones."""
        flat = flatten_dict(params, sep="/")
        trainable = {path: x for path, x in flat.items() if self.lr_multipliers[path] > 0}
        frozen = {path: x for path, x in flat.items() if path not in trainable}
        return unflatten_dict(trainable, sep="/"), unflatten_dict(frozen, sep="/")

    @staticmethod
    def merge(trainable: Any, frozen: Any) -> Any:
        """Undoes `split`."""
        return unflatten_dict(flatten_dict(trainable) | flatten_dict(frozen))

    def init(self, params: Any) -> Any:
        """Returns the optimizer state of the trainable ones among `params`."""
        return self.direction.init(self.split(params)[0])

    def update(self, grads: Any, opt_state: Any, params: Any, step: jax.Array) -> tuple:
        """Takes one update of the trainable parameters; see the module's docstring.

        Args:
          grads, params: pytrees of the trainable parameters.
          opt_state: the optimizer state.
          step: number of this update, from 0.

        Returns:
          (params, opt_state, metrics): metrics are the gradient's global norm before clipping,
          whether it was clipped, the norm of the new parameters and the learning rate.
        """
        grad_norm = optax.tree.norm(grads)
        clipped = jnp.zeros((), bool)
        if self.clip_norm is not None:
            clipped = grad_norm > self.clip_norm
            scale = jnp.where(clipped, self.clip_norm / grad_norm, 1.0)
            grads = jax.tree.map(lambda g: g * scale.astype(g.dtype), grads)
        directions, opt_state = self.direction.update(grads, opt_state, params)
        learning_rate = self.schedule(step)

        def apply(key_path, p, direction):
            path = _join(key_path)
            p32 = p.astype(jnp.float32)
            change = direction.astype(jnp.float32) + self.weight_decays[path] * p32
            return (p32 - learning_rate * self.lr_multipliers[path] * change).astype(p.dtype)

        params = jax.tree_util.tree_map_with_path(apply, params, directions)
        metrics = {
            "grad_norm": grad_norm,
            "clipped": clipped.astype(jnp.float32),
            "param_norm": optax.tree.norm(params),
            "learning_rate": learning_rate,
        }
        return params, opt_state, metrics


def make_optimizer(
    config: OptimizerConfig | Mapping[str, Any], abstract_params: Any, num_steps: int
) -> Optimizer:
    """Builds an optimizer for these parameters (nested dicts; shapes suffice).

    Raises:
      ValueError: an unknown or unread setting; a schedule that does not fit in `num_steps`; a
        parameter that matches no rule or several; a rule that matches no parameter.
    """
    if not isinstance(config, OptimizerConfig):
        config = OptimizerConfig.from_mapping(config)
    paths = list(flatten_dict(abstract_params, sep="/"))
    lr_multipliers = match_rules("lr_rules", config.lr_rules, paths)
    decays = match_rules("decay_rules", config.decay_rules, paths)
    if not any(lr_multipliers.values()):
        raise ValueError("lr_rules freeze every parameter: give one a multiplier above 0")
    return Optimizer(
        direction=DIRECTIONS[config.name](**config.direction),
        schedule=learning_rate_schedule(config, num_steps),
        clip_norm=config.clip_norm,
        lr_multipliers=lr_multipliers,
        weight_decays={path: config.weight_decay * decays[path] for path in paths},
    )


def match_rules(name: str, rules: Rules, paths: list[str]) -> dict[str, float]:
    """Returns the multiplier of every path; `OptimizerConfig` describes rules and errors."""
    patterns = [pattern for pattern, _ in rules if pattern != REST]
    matched: dict[str, float] = {}
    used = {REST}
    for pattern, multiplier in rules:
        if multiplier < 0:
            raise ValueError(f"{name}: the multiplier of {pattern!r} is {multiplier}; use >= 0")
    for path in paths:
        hits = [pattern for pattern in patterns if re.fullmatch(pattern, path)]
        if len(hits) > 1:
            raise ValueError(
                f"{name}: parameter {path!r} matches {_list(map(repr, hits))}; it must match one"
            )
        hit = hits[0] if hits else REST
        if hit not in dict(rules):
            raise ValueError(
                f"{name}: parameter {path!r} matches no rule; add one, or ({REST!r}, multiplier)"
            )
        used.add(hit)
        matched[path] = float(dict(rules)[hit])
    for pattern in patterns:
        if pattern not in used:
            raise ValueError(f"{name}: {pattern!r} matches no parameter, such as {paths[0]!r}")
    return matched


def _adamw(b1: float = 0.9, b2: float = 0.95, eps: float = 1e-8, mu_dtype: str | None = None):
    """arXiv:1711.05101; `mu_dtype` is the dtype of the first moment, the parameter's if None."""
    return optax.scale_by_adam(b1, b2, eps, mu_dtype=mu_dtype)


def _adafactor(decay_rate: float = 0.8, clip_threshold: float = 1.0, min_factored: int = 128):
    """arXiv:1804.04235 without momentum; second moments of matrices are kept by row and column."""
    return optax.chain(
        optax.scale_by_factored_rms(decay_rate=decay_rate, min_dim_size_to_factor=min_factored),
        optax.clip_by_block_rms(clip_threshold),
    )


def _lion(b1: float = 0.9, b2: float = 0.99):
    """arXiv:2302.06675."""
    return optax.scale_by_lion(b1, b2)


# Muon's matrices: the path, the number of leading axes that stack matrices (layers, experts), and
# the number of axes after them that are the matrix's inputs. All other parameters follow Adam.
MATRICES = (
    (r"(dense_)?layers/attention/o/kernel", 1, 2),
    (r"(dense_)?layers/.*/kernel", 1, 1),
    (r"layers/mlp/(gate|up|down)", 2, 1),
)


def _matrix_axes(key_path: Any, rank: int) -> MuonDimensionNumbers | None:
    """Returns the input and output axes of a parameter's matrices; None if it holds no matrix."""
    path = _join(key_path)
    for pattern, stacked, inputs in MATRICES:
        if re.fullmatch(pattern, path):
            middle = stacked + inputs
            return MuonDimensionNumbers(tuple(range(stacked, middle)), tuple(range(middle, rank)))
    return None


def _muon(
    momentum: float = 0.95,
    rms: float = 0.2,
    b1: float = 0.9,
    b2: float = 0.95,
    eps: float = 1e-8,
    mu_dtype: str | None = None,
):
    """Orthogonalized momentum for the matrices of the layers, and Adam for everything else.

    An update of a matrix has the root mean square `rms`, which is about that of Adam's, so that one
    learning rate serves both (arXiv:2502.16982, section 2.2).
    """

    def axes_of(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(lambda at, x: _matrix_axes(at, x.ndim), params)

    def labels(params: Any) -> Any:
        return jax.tree_util.tree_map_with_path(
            lambda at, x: "matrix" if _matrix_axes(at, x.ndim) else "other", params
        )

    def scale(key_path: Any, x: jax.Array) -> jax.Array:
        # A matrix with orthonormal rows or columns has this root mean square.
        axes: Any = _matrix_axes(key_path, x.ndim)
        longer = max(math.prod(x.shape[i] for i in each) for each in axes)
        return x * (rms * math.sqrt(longer))

    orthogonal = optax.contrib.scale_by_muon(
        beta=momentum, mu_dtype=mu_dtype, weight_dimension_numbers=axes_of
    )
    scaled = optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(scale, updates))
    adam = optax.scale_by_adam(b1, b2, eps, mu_dtype=mu_dtype)
    return optax.partition({"matrix": optax.chain(orthogonal, scaled), "other": adam}, labels)


def _sgd(momentum: float = 0.0, nesterov: bool = False):
    return optax.trace(momentum, nesterov) if momentum else optax.identity()


DIRECTIONS = {"adamw": _adamw, "muon": _muon, "adafactor": _adafactor, "lion": _lion, "sgd": _sgd}


def _join(key_path) -> str:
    return "/".join(str(entry.key) for entry in key_path)


def _list(names) -> str:
    return ", ".join(names)
