"""Loading and exporting on a mesh of eight devices, in a process of its own."""

import os
import subprocess
import sys
from pathlib import Path

GOLDEN = Path(__file__).parents[1] / "golden"

_CHECKS = """
import sys
import tempfile
from pathlib import Path

import jax
import numpy as np
from safetensors.numpy import load_file

from models.decoder import LanguageModel
from models.hf import load
from models.hf.export import export_model
from models.sharding import make_mesh, tree_shardings

golden = Path(sys.argv[1])
assert jax.device_count() == 8
read_shard, shards = load._read_shard, []
load._read_shard = lambda *args: shards.append(read_shard(*args)) or shards[-1]


def tensors(directory):
    return {k: v for file in directory.glob("*.safetensors") for k, v in load_file(file).items()}


meshes = {"fsdp": 8}, {"fsdp": 2, "tensor": 2, "data": 2}, {"tensor": 4, "data": 2}
for name in (
    "llama_rope_scaling", "qwen2_tied_sharded", "qwen3_untied_sharded_bf16",
    "deepseek_v3_yarn_sharded",
):
    config = load.load_config(golden / name)
    model = LanguageModel(config)
    whole = load.load_params(golden / name, config)
    for axes in meshes:
        mesh = make_mesh(axes)
        shards.clear()
        params = load.load_params(golden / name, config, mesh)
        expected = tree_shardings(model.abstract_params, model.logical_axes, mesh)
        actual = jax.tree.map(lambda x: x.sharding, params)
        assert actual == expected, (name, axes)
        jax.tree.map(np.testing.assert_array_equal, params, whole)

        # Each distinct shard was read once, and nothing larger than a shard ever was.
        shapes = []
        for x in jax.tree.leaves(params):
            distinct = set(map(str, x.sharding.devices_indices_map(x.shape).values()))
            shapes += [x.sharding.shard_shape(x.shape)] * len(distinct)
        assert sorted(shard.shape for shard in shards) == sorted(shapes)
        if axes == {"fsdp": 8}:
            assert params["embedding"].addressable_shards[0].data.shape == (96, 4)

        with tempfile.TemporaryDirectory() as out:
            export_model(Path(out) / "out", config, params, max_shard_bytes=25_000)
            stored, again = tensors(golden / name), tensors(Path(out) / "out")
            assert stored.keys() == again.keys()
            for key in stored:
                np.testing.assert_array_equal(again[key], stored[key].astype(np.float32))
print("ok")
"""


def test_eight_devices_hold_what_one_does():
    flags = f"{os.environ['XLA_FLAGS']} --xla_force_host_platform_device_count=8"
    environment = os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", _CHECKS, str(GOLDEN)],
        cwd=root, env=environment, capture_output=True, text=True, timeout=300,
    )  # fmt: skip
    assert done.returncode == 0 and done.stdout == "ok\n", done.stderr[-3000:]
