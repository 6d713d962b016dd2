"""Run by test_splash.py: compiles attention for TPUs that are not there, and checks the program."""

import re

import jax
import jax.numpy as jnp
from jax.experimental import topologies
from jax.sharding import NamedSharding, PartitionSpec

from models.layers.attention import packed_attention
from models.layers.kv_cache import column_blocks
from models.sharding import make_mesh

LENGTH = 4096
# Heads, key heads, dimension of keys and of values: Qwen2.5-7B, and DeepSeek-V3 with fewer heads.
SHAPES = [(28, 4, 128, 128), (16, 16, 192, 128)]


def compiled(mesh, heads, kv_heads, key_dim, value_dim):
    rows = NamedSharding(mesh, PartitionSpec("fsdp"))

    def array(*shape):
        return jax.ShapeDtypeStruct((2, LENGTH, *shape), jnp.bfloat16, sharding=rows)

    def loss(q, k, v, segments):
        return packed_attention(q, k, v, segments).astype(jnp.float32).sum()

    arrays = array(heads, key_dim), array(kv_heads, key_dim), array(kv_heads, value_dim)
    segments = jax.ShapeDtypeStruct((2, LENGTH), jnp.int32, sharding=rows)
    gradient = jax.jit(jax.grad(loss, argnums=(0, 1, 2)))
    return gradient.lower(*arrays, segments).compile()


def main():
    devices = topologies.get_topology_desc(platform="tpu", topology_name="v5p:2x2x1").devices
    for sizes, shapes in (({"fsdp": 2, "tensor": 2}, SHAPES), ({"context": 4}, SHAPES[:1])):
        mesh = make_mesh(sizes, devices)
        with jax.set_mesh(mesh):
            assert column_blocks(2048) == (512, 4), column_blocks(2048)
            for shape in shapes:
                text = compiled(mesh, *shape).as_text() or ""
                assert 'custom_call_target="tpu_custom_call"' in text
                squares = re.findall(rf"\[[\d,]*(?:{LENGTH}|{LENGTH // 4}),{LENGTH}\]", text)
                assert not squares, f"a square of scores: {squares[0]}"
    assert column_blocks(2048) == (32, 64), "without a mesh, JAX computes on this CPU"


if __name__ == "__main__":
    main()
