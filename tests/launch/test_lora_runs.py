"""LoRA in `run_rl` and `run_sft`: what is trained, saved, resumed and exported."""

import json
import os
import signal

import jax
import numpy as np
import pytest
from flax.traverse_util import flatten_dict

from configs import sft as sft_config
from launch import run_export, run_rl, run_sft
from launch.jobs.training import reinforcement
from launch.parts.endings import Interrupted
from models.checkpoint import load_model
from reasoning.jsonl import read_jsonl
from rl import learner
from tests.launch.test_run_rl import _config, _records, files  # noqa: F401

LORA = {"lora.rank": 2, "lora.alpha": 4.0, "loss.beta": 0.05, "recompute_old": True}


def flat(directory):
    return {path: np.asarray(x) for path, x in flatten_dict(load_model(directory).params).items()}


@pytest.fixture(scope="module")
def finished(files):  # noqa: F811
    """A run that nothing disturbed, and the references and sampling weights that it used."""
    seen = []
    patched = pytest.MonkeyPatch()
    take = learner.PolicySource._informative_rollouts

    def note(self, spent):
        seen.append(jax.tree.map(np.array, self._rollouts.generator.params))
        return take(self, spent)

    patched.setattr(learner.PolicySource, "_informative_rollouts", note)
    run_rl.run(_config(files, **LORA), files / "lora")
    patched.undo()
    return files / "lora", seen


def test_only_adapted_kernels_change_each_by_a_matrix_of_the_rank(files, finished):  # noqa: F811
    before, after = flat(files / "tiny" / "model"), flat(finished[0] / "rl" / "hf")
    assert before.keys() == after.keys()
    changed = {path for path in before if not np.array_equal(before[path], after[path])}
    assert changed and all(path[-1] == "kernel" and path[0] == "layers" for path in changed)
    for path in changed:
        wide = {"o": 2, "q": 1, "k": 1, "v": 1}.get(path[-2], 1)
        change = np.float64(after[path][0]) - before[path][0]
        change = change.reshape(int(np.prod(change.shape[:wide])), -1)
        singular = np.linalg.svd(change, compute_uv=False)
        assert singular[0] > 1e-5 and singular[2:].max(initial=0) < 1e-5 * max(1, singular[0])


def test_the_sampler_has_the_base_models_tree_merged_once_a_rollout(files, finished):  # noqa: F811
    first, *later = (flatten_dict(tree) for tree in finished[1])
    model = flat(files / "tiny" / "model")
    assert first.keys() == model.keys()
    for path in model:  # New adapters change nothing.
        np.testing.assert_array_equal(first[path], model[path])
    kernel = ("layers", "mlp", "up", "kernel")
    assert len(later) == 2 and not np.array_equal(later[0][kernel], first[kernel])


def test_the_kl_is_to_the_base_model_and_begins_at_nothing(finished):
    lines = _records(finished[0] / "rl" / "metrics.jsonl")
    # Two programs compute the two sides, so rounding may remain.
    assert lines[0]["reference_kl"] < 1e-12 < 1e-6 < lines[-1]["reference_kl"]
    # The trainer, which has adapters, and the sampler, with merged weights, agree.
    assert all(line["first_sampler_gap_max"] < 1e-3 for line in lines)


def test_checkpoints_hold_adapters_alone_and_resume(files, finished, monkeypatch):  # noqa: F811
    workdir = files / "lora_interrupted"
    with monkeypatch.context() as patched:
        write = reinforcement._write_samples

        def interrupt(writer, step, rollouts):
            write(writer, step, rollouts)
            if step == 2:
                os.kill(os.getpid(), signal.SIGTERM)

        patched.setattr(reinforcement, "_write_samples", interrupt)
        with pytest.raises(Interrupted, match="SIGTERM after step 2"):
            run_rl.run(_config(files, **LORA), workdir)
    for path in (workdir / "rl" / "checkpoints").glob("*/state/_METADATA"):
        names = json.loads(path.read_text())["tree_metadata"]
        assert names and all("adapter" in name for name in names if "params" in name)
    run_rl.run(_config(files, **LORA), workdir)
    resumed, undisturbed = flat(workdir / "rl" / "hf"), flat(finished[0] / "rl" / "hf")
    for path, x in undisturbed.items():
        np.testing.assert_array_equal(resumed[path], x)


def test_checkpoints_on_another_base_model_are_refused(files, tmp_path, monkeypatch):  # noqa: F811
    config = _config(files, **LORA, steps=1)
    run_rl.run(config, tmp_path / "run")
    (tmp_path / "run" / "rl" / "result.json").unlink()
    monkeypatch.setattr("launch.jobs.adapters.digest", lambda params: "another")
    with pytest.raises(ValueError, match="base_model_sha256=.* this one has another"):
        run_rl.run(config, tmp_path / "run")


def test_sft_trains_adapters_and_gguf_has_the_merged_weights(files, tmp_path):  # noqa: F811
    config = sft_config.get_config("tiny")
    config.model, config.data = str(files / "tiny" / "model"), str(files / "tiny" / "sft.jsonl")
    config.rows, config.num_epochs, config.log_every = 4, 1, 1
    config.lora.rank, config.optimizer.learning_rate = 2, 1e-2
    run_sft.run(config, tmp_path / "run")
    losses = [line["loss"] for _, line in read_jsonl(tmp_path / "run" / "sft" / "metrics.jsonl")]
    assert np.mean(losses[-3:]) < 0.9 * np.mean(losses[:3])
    before, after = flat(files / "tiny" / "model"), flat(tmp_path / "run" / "sft" / "hf")
    assert {path[0] for path in before if not np.array_equal(before[path], after[path])} == {
        "layers"
    }
    run_export.run(str(tmp_path / "run" / "sft" / "hf"), str(tmp_path / "m.gguf"), "f32")
    exported = flat(f"gguf:{tmp_path / 'm.gguf'}")
    for path, x in after.items():
        np.testing.assert_array_equal(exported[path], x)


def test_rules_beside_the_adapters_are_refused(files, tmp_path):  # noqa: F811
    changes = {"lora.rank": 2, "optimizer.lr_rules": ((".*", 1.0),)}
    config = _config(files)
    with config.unlocked():
        config.optimizer.lr_rules = changes.pop("optimizer.lr_rules")
    config.update_from_flattened_dict(changes)
    with pytest.raises(
        ValueError, match="config.optimizer.lr_rules.*must be None with lora.rank=2"
    ):
        run_rl.run(config, tmp_path / "run")
