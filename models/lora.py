"""LoRA: trains low-rank changes of chosen kernels while all other parameters stay frozen.

Source: arXiv:2106.09685.
"""

import dataclasses
import functools
import math
import re
from typing import Any

import jax
import jax.numpy as jnp
from flax import nnx
from flax.traverse_util import flatten_dict, unflatten_dict

from models.config import ModelConfig
from models.decoder import Decoder, LanguageModel
from models.layers.dense import Projection
from models.sharding import constrain

# Learning-rate rules for `train.optimizer`: it trains adapters; all other parameters have neither
# gradients nor optimizer state.
LR_RULES = ((r".*/adapter/(a|b)", 1.0), ("rest", 0.0))


@dataclasses.dataclass(frozen=True)
class LoraConfig:
    """Settings of LoRA: for chosen kernels W, x W becomes x W + alpha / rank * (x A) B.

    Attributes:
      rank: columns of A and rows of B.
      alpha: factor of the change; since `rank` divides it, a new rank leaves the change's size as
        it is.
      targets: regular expression that the whole path of a kernel must match, such as
        `layers/attention/(q|v)/kernel`. The default matches every kernel of a block that can have
        an adapter. Routed experts cannot have one; the shared expert can.

    Raises:
      ValueError: the rank is below one, or alpha is not positive.
    """

    rank: int = 16
    alpha: float = 32.0
    targets: str = r"(dense_)?layers/(attention|mlp|mlp/shared)/\w+/kernel"

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"LoRA rank={self.rank}: it must be at least 1")
        if not self.alpha > 0:
            raise ValueError(f"LoRA alpha={self.alpha}: it must be positive")


class Adapter(nnx.Module):
    """The change scale * (x A) B of one kernel.

    A is drawn with variance 1 / fan-in and B starts at zero, so a new adapter changes nothing. The
    kernel is stacked over layers, and so are A and B. A is split over devices like the kernel's
    inputs, B like its outputs.
    """

    def __init__(self, base: Projection, lora: LoraConfig, rngs: nnx.Rngs):
        kernel = base.kernel
        axes = kernel.get_metadata("logical_axes")
        layers, *shape = kernel.shape
        inputs, outputs = shape[: base.in_dims], shape[base.in_dims :]
        draw = jax.random.normal(rngs.params(), (layers, *inputs, lora.rank), jnp.float32)
        a = (draw * math.prod(inputs) ** -0.5).astype(kernel.dtype)
        b = jnp.zeros((layers, lora.rank, *outputs), kernel.dtype)
        self.a = nnx.Param(a, logical_axes=(*axes[: base.in_dims], None))
        self.b = nnx.Param(b, logical_axes=(None, *axes[base.in_dims :]))
        self.scale = lora.alpha / lora.rank

    def __call__(self, x: jax.Array) -> jax.Array:
        """Returns the change `[tokens, fan-out]` of the product for `x [tokens, fan-in]`."""
        a, b = self.a[...].astype(x.dtype), self.b[...].astype(x.dtype)
        return (x @ a.reshape(x.shape[-1], -1)) @ b.reshape(b.shape[0], -1) * self.scale

    def change(self) -> jax.Array:
        """Returns the change of one layer's kernel, in the kernel's shape."""
        return jnp.tensordot(self.a[...], self.b[...], 1) * self.scale


class LoraModel(LanguageModel):
    """A `LanguageModel` with adapters.

    Its parameters are those of the base model plus A and B of each adapter, which lie beside the
    adapter's kernel at `.../adapter/a` and `.../adapter/b`.

    Example:
      model = LoraModel(base.config, LoraConfig(rank=8))
      params = model.attach(base_params, jax.random.key(0))
      ...  # train with LR_RULES
      export_model(directory, base.config, model.merge(params))
    """

    def __init__(self, config: ModelConfig, lora: LoraConfig):
        """Creates the model.

        Raises:
          ValueError: `lora.targets` is not a regular expression, or it matches no kernel.
        """
        self.lora = lora
        super().__init__(config)

    @functools.cached_property
    def base(self) -> LanguageModel:
        """The model without adapters."""
        return LanguageModel(self.config)

    def module(self, rngs: nnx.Rngs) -> Decoder:
        """Builds the NNX module with random parameters and an adapter beside each target."""
        decoder = super().module(rngs)
        kernels = {}
        for stack in self.config.stacks:
            for path, module in nnx.iter_modules(getattr(decoder, stack)):
                if isinstance(module, Projection):
                    kernels["/".join(map(str, (stack, *path, "kernel")))] = module
        try:
            matches = [name for name in kernels if re.fullmatch(self.lora.targets, name)]
        except re.error as error:
            raise ValueError(
                f"LoRA targets={self.lora.targets!r} is not a regular expression: {error}"
            ) from None
        if not matches:
            raise ValueError(
                f"LoRA targets={self.lora.targets!r} match none of {', '.join(sorted(kernels))}"
            )
        for name in sorted(matches):
            kernels[name].adapter = Adapter(kernels[name], self.lora, rngs)
        return decoder

    def attach(self, base_params: Any, key: jax.Array) -> Any:
        """Returns the parameters of a base model with new adapters, which change nothing yet."""

        def adapters(key):
            flat = flatten_dict(self.init(key))
            return {path: x for path, x in flat.items() if "adapter" in path}

        return unflatten_dict(flatten_dict(base_params) | jax.jit(adapters)(key))

    def merge(self, params: Any) -> Any:
        """Returns parameters of the base model with W + alpha / rank * A B as kernels.

        A merged kernel is split over devices as its kernel is. All other arrays are those of
        `params`, not copies.
        """
        flat = flatten_dict(params)
        pairs = {}
        for path, x in flat.items():
            beside = (*path[:-1], "adapter")
            if path[-1] == "kernel" and (*beside, "a") in flat:
                pairs[path] = (x, flat[*beside, "a"], flat[*beside, "b"])
        kept = {path: x for path, x in flat.items() if "adapter" not in path}
        return unflatten_dict(kept | self._merge_kernels(pairs))

    @functools.cached_property
    def _merge_kernels(self):
        axes: Any = flatten_dict(self.logical_axes)

        def merge(pairs):
            merged = {}
            for path, (kernel, a, b) in pairs.items():
                a, b = a.astype(jnp.float32), b.astype(jnp.float32)
                change = jax.vmap(functools.partial(jnp.tensordot, axes=1))(a, b)
                change *= self.lora.alpha / self.lora.rank
                changed = (kernel.astype(jnp.float32) + change).astype(kernel.dtype)
                merged[path] = constrain(changed, *axes[path])
            return merged

        return jax.jit(merge)
