"""The tiny world at the size of the notebooks, each of which takes minutes on a free CPU runtime.

    python -m launch.run_r1 --config=configs/notebooks/tiny.py --workdir=runs/notebooks

Trainings are shorter than in `configs/tiny.py`, and fewer problems are evaluated. All notebooks
share this config, so in one folder they share their checkpoints. `configs/notebooks/tiny.py:test` runs
the same code in seconds; its model is too small to learn anything.
"""

from ml_collections import ConfigDict

from configs import tiny

ARGUMENTS = ("", "test")


def get_config(arg: str = "") -> ConfigDict:
    if arg not in ARGUMENTS:
        raise ValueError(
            f"configs/notebooks/tiny.py:{arg} is unknown; after the colon comes one of {ARGUMENTS}"
        )
    test = arg == "test"
    config = tiny.get_config("smoke" if test else "")
    config.evaluation.update(problems=4 if test else 100, rows=16 if test else 100)
    config.evaluation.votes = None
    config.r1_zero.steps = 3 if test else 100
    config.reasoning_rl.steps = config.r1.rl.steps = 3 if test else 30

    each = 4 if test else 150
    config.cold_start.problems = {"tiny_math": each, "tiny_logic": each, "tiny_code": each}
    config.rejection_sft.reasoning.problems = {
        task: each if test else 2 * each for task in ("tiny_math", "tiny_logic", "tiny_code")
    }
    config.verifiers.problems = {"tiny_math?low=9&high=9": 12 if test else 300}
    config.verifiers.bench_problems = 4 if test else 50
    config.distill.methods = ("rl_only", "sequence")
    if test:
        _make_tinier(config, each)
    else:
        config.distill.rl_only.steps = 50
    return config


def _make_tinier(config: ConfigDict, each: int) -> None:
    """Shortens whatever takes longer than a second."""
    config.tokenizer.documents = config.pretrain.documents = 700
    config.distill.base.pretrain.documents = 300
    config.model.num_layers = config.model.scan_unroll = 1
    config.model.update(embed_dim=64, head_dim=16, mlp_dim=128)
    config.pretrain.optimizer.update(name="adamw", learning_rate=6e-3)
    config.rejection_sft.general.problems = {"tiny_knowledge": each, "tiny_chat": each}
    config.r1.harmless_problems = {"tiny_math": 4}
    config.distill.problems = {"tiny_math": each, "tiny_logic": each}
    # There are few samples, and a training needs more than one step.
    for section in (config.cold_start.sft, config.rejection_sft.sft, config.distill.sequence):
        section.update(row_length=128, epochs=8)
    config.r1.reward_model.epochs, config.verifiers.epochs = 1, 3
