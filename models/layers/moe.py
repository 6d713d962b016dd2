"""Mixture of experts (DeepSeek-V3, arXiv:2412.19437, section 2.1.2): exact, no token is dropped."""

import functools

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec

from models.config import Experts, ModelConfig
from models.layers.dense import MLP, normal
from models.sharding import partition_spec


class MoE(nnx.Module):
    """Routed experts, of which each token meets a few, and a shared one that it always meets.

    Every device sends its own tokens to its own slice of every expert: the hidden dimension of each
    is split over `tensor`, as an MLP's is. So no token travels, and devices that share a row have
    equal work however unequal the experts' loads are.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        experts, dtype = config.experts, config.param_dtype
        E, D, F = experts.num_experts, config.embed_dim, experts.mlp_dim
        into = ("experts", "embed", "mlp")
        self.router = Router(config, rngs)
        self.gate = normal(rngs, (E, D, F), D, into, dtype)
        self.up = normal(rngs, (E, D, F), D, into, dtype)
        self.down = normal(rngs, (E, F, D), F, ("experts", "mlp", "embed"), dtype)
        if experts.num_shared:
            self.shared = MLP(config, rngs, experts.num_shared * F)
        self.config = experts

    def __call__(self, x_BTD):
        router = self.router.kernel[...].astype(jnp.float32), self.router.bias[...]
        kernels = self.gate, self.up, self.down
        kernels = tuple(kernel[...].astype(x_BTD.dtype) for kernel in kernels)
        of_device = functools.partial(_routed, self.config)
        mesh = jax.sharding.get_abstract_mesh()
        if mesh.empty or mesh.size == 1:
            out_BTD = of_device(None, x_BTD, router, kernels)
        else:
            rows = partition_spec(("batch", None, None), x_BTD.shape, mesh)
            into = partition_spec((None, None, "mlp"), kernels[0].shape, mesh)
            back = partition_spec((None, "mlp", None), kernels[2].shape, mesh)
            out_BTD = jax.shard_map(
                functools.partial(of_device, into[2]),
                in_specs=(rows, (PartitionSpec(), PartitionSpec()), (into, into, back)),
                out_specs=rows,
            )(x_BTD, router, kernels)
        return out_BTD + self.shared(x_BTD) if self.config.num_shared else out_BTD


class Router(nnx.Module):
    """What `route` takes.

    The bias corrects the choice of experts and has no gradient. Balancing moves it in pretraining;
    here it stays as it was loaded, always in float32, since the differences that matter are small.
    """

    def __init__(self, config: ModelConfig, rngs: nnx.Rngs):
        D, E = config.embed_dim, config.experts.num_experts
        self.kernel = normal(rngs, (D, E), D, ("embed", None), config.param_dtype)
        self.bias = nnx.Param(jnp.zeros(E, jnp.float32), logical_axes=(None,))


def route(config: Experts, x_ND, kernel_DE, bias_E) -> tuple[jax.Array, jax.Array]:
    """Which experts each token is sent to, and with what weights; equations 12 to 16.

    Affinities are sigmoids, in float32. Biased by `bias_E`, they decide: first which groups, by the
    sum of each group's two best, then which experts of those. Weights are of the unbiased ones.

    Returns:
      `[N, C]` experts (int32), C = `config.per_token`, and their weights (float32).
    """
    logits_NE = jnp.matmul(x_ND.astype(jnp.float32), kernel_DE, precision="highest")
    affinity_NE = jax.nn.sigmoid(logits_NE)
    biased_NE = jax.lax.stop_gradient(affinity_NE) + bias_E
    if config.groups_per_token < config.groups:
        grouped = biased_NE.reshape(-1, config.groups, config.num_experts // config.groups)
        group_scores = jax.lax.top_k(grouped, 2)[0].sum(-1)
        _, best = jax.lax.top_k(group_scores, config.groups_per_token)
        allowed = (best[..., None] == jnp.arange(config.groups)).any(-2)
        biased_NE = jnp.where(allowed[..., None], grouped, -jnp.inf).reshape(biased_NE.shape)
    _, chosen_NC = jax.lax.top_k(biased_NE, config.per_token)
    weights_NC = jnp.take_along_axis(affinity_NE, chosen_NC, -1)
    if config.normalize:
        weights_NC /= weights_NC.sum(-1, keepdims=True) + 1e-20
    return chosen_NC, weights_NC * config.scale


def _routed(config: Experts, tensor_axes, x_BTD, router, kernels):
    """What a device makes of its tokens with its part of every expert, summed over the parts."""
    gate, up, down = kernels
    x_ND = x_BTD.reshape(-1, x_BTD.shape[-1])
    chosen_NC, weights_NC = route(config, x_ND, *router)
    if tensor_axes is not None:
        # What a part adds to the gradients is summed over parts here, once for each token, not
        # once for each of its experts.
        x_ND, weights_NC = jax.lax.pcast((x_ND, weights_NC), tensor_axes, to="varying")
    # One row for each token and expert, in the order of the experts.
    order = jnp.argsort(chosen_NC.ravel())
    back = jnp.argsort(order)
    sizes_E = jnp.sum(chosen_NC.ravel()[:, None] == jnp.arange(config.num_experts), 0)
    rows = _to_experts(x_ND, order, back.reshape(chosen_NC.shape))
    hidden = jax.nn.silu(jax.lax.ragged_dot(rows, gate, sizes_E))
    hidden *= jax.lax.ragged_dot(rows, up, sizes_E)
    # Before the last product, which is linear: its results need not be kept for the gradient then.
    weights = _permuted(weights_NC.ravel(), order, back)
    hidden = (hidden * weights[:, None]).astype(x_ND.dtype)
    rows = jax.lax.ragged_dot(hidden, down, sizes_E)
    out_NCD = _permuted(rows, back, order).reshape(*chosen_NC.shape, -1)
    out_ND = out_NCD.sum(1)
    if tensor_axes is not None:
        out_ND = jax.lax.psum(out_ND, tensor_axes)
    return out_ND.reshape(x_BTD.shape)


# Both directions are gathers: JAX transposes a gather to a scatter, which is slow.
@jax.custom_vjp
def _permuted(x, index, inverse):
    """`x[index]`, a permutation."""
    del inverse
    return x[index]


@jax.custom_vjp
def _to_experts(x_ND, order, back_NC):
    """Row i of the result is the token of entry `order[i]` of the flattened choice `[N, C]`."""
    return x_ND[order // back_NC.shape[1]]


_permuted.defvjp(
    lambda x, index, inverse: (x[index], inverse),
    lambda inverse, out: (out[inverse], None, None),
)
_to_experts.defvjp(
    lambda x_ND, order, back_NC: (_to_experts(x_ND, order, back_NC), back_NC),
    lambda back_NC, rows: (rows[back_NC].sum(1), None, None),
)
