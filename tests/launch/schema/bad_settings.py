"""Wrong settings, each with what its one line must name; run it for the figure.

    python -m tests.launch.schema.bad_settings

gives every wrong setting to the entry point that it is for, and prints how many of them end in one
clear line before anything is written. `test_bad_settings.py` runs the same table.
"""

import dataclasses
import tempfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

from configs import distill, gsm8k_grpo, r1_full, sft, teacher, tiny, tiny_distill
from launch import run_distill, run_rl, run_sft, run_teacher, schema
from launch.schema.tiny import TinyConfig

NAN, INFINITE = float("nan"), float("inf")
# A field that is taken away.
ABSENT = object()


def _run_tiny(config: Any, workdir: str) -> None:
    """What `run_r1` and `run_search` begin with."""
    schema.load(TinyConfig, config)
    raise AssertionError("the config was accepted")


@dataclasses.dataclass(frozen=True)
class Entry:
    """An entry point, its config, and what makes that config right."""

    make: Callable[[], Any]
    run: Callable[[Any, str], None]
    right: Mapping[str, Any]


ENTRIES = {
    "rl": Entry(lambda: gsm8k_grpo.get_config("tiny"), run_rl.run, {"model": "no/model"}),
    "rl_big": Entry(gsm8k_grpo.get_config, run_rl.run, {"model": "no/model"}),
    "r1_full": Entry(
        lambda: r1_full.get_config("r1_zero,qwen2.5-7b"), run_rl.run, {"model": "no/model"}
    ),
    "sft": Entry(lambda: sft.get_config("tiny"), run_sft.run, {"model": "no/model"}),
    "teacher": Entry(
        teacher.get_config,
        run_teacher.run,
        {"task": "gsm8k", "teacher.server": "http://127.0.0.1:9", "teacher.model": "m"},
    ),
    "distill": Entry(
        distill.get_config, run_distill.run, {"teacher": "no/teacher", "student": "no/student"}
    ),
    "tiny_distill": Entry(
        lambda: tiny_distill.get_config("smoke"), run_distill.run, {"teacher": "no/teacher"}
    ),
    "tiny": Entry(lambda: tiny.get_config("smoke"), _run_tiny, {}),
}

# Entry point, changes, what the line must name, and words that it must have.
Case = tuple[str, dict[str, Any], str, str]


def _each(entry: str, values: Mapping[str, tuple[Any, ...]]) -> Iterator[Case]:
    """A case for each wrong value of each field."""
    for field, wrong in values.items():
        for value in wrong:
            yield entry, {field: value}, f"config.{field}", ""


CASES: list[Case] = [
    # Found after the first evaluation, or never.
    *_each(
        "rl",
        {
            "group": (1, 0, -3),
            "temperature": (0.0, -1.0, NAN, INFINITE),
            "reward_workers": (0,),
            "reward_timeout_s": (0.0,),
            "reward_memory_mb": (1,),
            "reference_every": (0,),
            "checkpoint_every": (0, -1),
            "evaluate_every": (0,),
            "sample_every": (0, -3),
            "seed": (-1, 2**40),
            "steps": (0, -1, 10**5000, 2.5, "many"),
            "data_epochs": (0.0, -2.0),
            "epochs": (0, -1),
            "prompts": (0, -4),
            "problems": (0, -1),
            "minibatches": (0,),
            "microbatches": (0,),
            "rows": (0, 8),
            "row_length": (0, 100),
            "sampler_rows": (0,),
            "max_new_tokens": (0,),
            "max_prompt_tokens": (0,),
            "max_resamples": (-1,),
            "evaluation.samples": (0,),
            "evaluation.problems": (0, -1),
            "evaluation.problems_during": (0,),
            "evaluation.rows": (0,),
            "evaluation.top_p": (0.0, 1.5),
            "evaluation.temperature": (-0.1,),
            "evaluation.max_new_tokens": (0,),
            "optimizer.learning_rate": (0.0, -1e-3, NAN),
            "optimizer.warmup_steps": (-1, 31),
            "optimizer.clip_norm": (0.0,),
            "optimizer.b2": (1.0,),
            "optimizer.weight_decay": (-0.1,),
            "loss.clip_low": (-0.1,),
            "loss.dual_clip": (1.0,),
            "loss.beta": (-1.0,),
            "loss.tis_cap": (0.0,),
            "diagnosis": ("off",),
            "staleness": (1, 2, -1),
            "sampler_weights": ("int4", "int8"),
            "sampler_cache": ("int4", "int8"),
            "loss.mask_low": (-0.1, 1.0),
            "loss.mask_high": (1.0,),
            "loss.correction_level": ("word",),
            "lora.rank": (-1,),
            "lora.alpha": (0.0,),
            "lora.targets": ("(", ""),
            "advantage.std_epsilon": (-1.0,),
            "mesh": ({"data": 0}, {"date": 1}, {}),
        },
    ),
    ("rl", {"mesh": {"data": -1, "fsdp": -1}}, "config.mesh", "at most one"),
    ("rl", {"evaluation.samples": 2, "evaluation.temperature": 0.0}, "evaluation.temperature",
     "equal"),
    ("rl", {"reference_every": 5, "loss.beta": 0.0}, "config.reference_every", "loss.beta"),
    ("rl", {"steps": None, "data_epochs": None}, "config.steps", "data_epochs"),
    ("rl", {"optimizer.schedule": "wsd"}, "decay_steps", "wsd"),
    ("rl", {"optimizer.momentum": 0.9}, "momentum", "adamw"),
    ("rl", {"optimizer.lr_rules": (("a", "b"),)}, "config.optimizer.lr_rules", "pairs"),
    ("rl", {"minibatches": 3}, "config.prompts", "minibatches=3"),
    ("sft", {"microbatches": 3}, "config.rows", "microbatches=3"),
    ("tiny", {"model.head_dim": 7}, "config.model", "head_dim=7"),
    # Names, with the nearest one.
    ("rl", {"model": ""}, "config.model", "empty"),
    ("rl", {"model": __file__}, "config.model", "is a file"),
    ("rl", {"task": ""}, "config.task", "empty"),
    ("rl", {"task": "gsm9k"}, "config.task", "unknown task"),
    ("rl", {"task": "jsonl"}, "config.task", "path"),
    ("rl", {"task": "gsm8k?folder=x"}, "config.task", "folder"),
    ("rl", {"template": "chat_r2"}, "config.template", "did you mean chat_r1?"),
    ("rl", {"variant": "grpoo"}, "config.variant", "did you mean grpo?"),
    ("rl", {"aggregation": "mean"}, "config.aggregation", "token_mean"),
    ("rl", {"advantage.estimator": "gae"}, "config.advantage.estimator", "rloo"),
    ("rl", {"loss.objective": "clipp"}, "config.loss.objective", "did you mean clip?"),
    ("rl", {"loss.ratio_level": "word"}, "config.loss.ratio_level", "token"),
    ("rl", {"loss.kl_estimator": "k4"}, "config.loss.kl_estimator", "k3"),
    ("rl", {"loss.kl_in": "advantage"}, "config.loss.kl_in", "reward"),
    ("rl", {"loss.kl_estimator": "k1", "loss.kl_in": "loss"}, "config.loss", "k1"),
    ("rl", {"dtype": "float33"}, "config.dtype", "float32"),
    ("rl", {"remat": "half"}, "config.remat", "full"),
    ("rl", {"optimizer.name": "adam"}, "config.optimizer.name", "did you mean adamw?"),
    ("rl", {"optimizer.schedule": "cosin"}, "config.optimizer.schedule", "cosine"),
    ("rl", {"loss.tis_cap": 2.0}, "config.recompute_old", "must be true"),
    ("rl", {"sampler_weights": "int8"}, "config.sampler_weights", "needs an importance correction"),
    ("rl", {"sampler_cache": "int8"}, "config.sampler_cache", "needs an importance correction"),
    ("rl", {"rollout_server.url": "http://a"}, "config.rollout_server.url", "needs an importance"),
    ("rl", {"rollout_server.url": "a:8000"}, "config.rollout_server.url", "give an address"),
    ("rl", {"variant": "icepop"}, "config.recompute_old", "must be true"),
    ("rl", {"stepz": 3}, "config.stepz", "did you mean steps?"),
    ("rl", {"optimizer.lr": 1.0}, "config.optimizer.lr", "unknown"),
    ("rl", {"prompts": ABSENT}, "config.prompts", "missing"),
    ("rl", {"evaluation": ABSENT}, "config.evaluation", "missing"),
    ("rl", {"optimizer": 3}, "config.optimizer", "ConfigDict"),
    ("rl", {"recompute_old": 1}, "config.recompute_old", "true or false"),
    ("rl", {"group": True}, "config.group", "whole number"),
    ("rl", {"evaluation.tasks": {"math": "gsm9k"}}, "config.evaluation.tasks", "unknown task"),
    ("rl", {"evaluation.tasks": {"math": 3}}, "config.evaluation.tasks", "text"),
    # Rewards.
    ("rl", {"rewards": ""}, "config.rewards", "empty"),
    ("rl", {"rewards": ","}, "config.rewards", "no rewards"),
    ("rl", {"rewards": "acuracy=1"}, "config.rewards", "unknown reward"),
    ("rl", {"rewards": "accuracy=much"}, "config.rewards", "weight"),
    ("rl", {"rewards": "accuracy?strict=true"}, "config.rewards", "no option"),
    ("rl", {"rewards": "no_such_file.py:letters"}, "config.rewards", "does not exist"),
    ("rl", {"rewards": "a=b/no_such_file.py:letters=0.5"}, "a=b/no_such_file.py", "not exist"),
    ("rl", {"rewards": "EXITING:reward"}, "config.rewards", "sys.exit(1)"),
    ("rl", {"rewards": "BROKEN:reward"}, "config.rewards", "SyntaxError"),
    ("rl", {"rewards": {}}, "config.rewards", "empty"),
    # Fields that are computed from others.
    ("rl_big", {"minibatches": 0}, "config.minibatches", "at least 1"),
    ("rl_big", {"group": 0}, "config.group", "at least 2"),
    ("rl_big", {"data_epochs": -1.0}, "config.data_epochs", "above 0"),
    ("r1_full", {"prompts": 500}, "config.prompts", "minibatches=16"),
    ("r1_full", {"mesh.tensor": 0}, "config.mesh['tensor']", "at least 1"),
    *_each(
        "sft",
        {
            "rows": (0, -1),
            "row_length": (0, 1),
            "microbatches": (0,),
            "num_epochs": (0, -1),
            "log_every": (0,),
            "checkpoint_every": (0,),
            "too_long": ("cut", ""),
            "data": ("no/such/file.jsonl",),
            "task": ("gsm9k",),
            "evaluation.problems": (0,),
            "optimizer.final_fraction": (1.5,),
            "model": (" ",),
        },
    ),
    ("sft", {"data": ""}, "config.data", "is empty: give a JSONL file"),
    *_each(
        "teacher",
        {
            "num_samples": (0,),
            "max_new_tokens": (0,),
            "temperature": (-1.0,),
            "top_p": (0.0, 2.0),
            "problems": (0,),
            "form": ("tag",),
            "template": ("chit",),
            "teacher.rows": (0,),
            "teacher.timeout_s": (0.0,),
            "teacher.attempts": (0,),
            "teacher.concurrency": (0, 10**6),
            "teacher.max_cost": (-1.0, 1.0),
            "teacher.requests_per_minute": (0,),
            "teacher.server": ("localhost:8000", ""),
            "teacher.model": ("",),
            "teacher.prices": ("no/prices.json",),
            "task": ("", "gsm9k"),
        },
    ),
    ("teacher", {"task": "", "prompts": "no/prompts.jsonl"}, "config.prompts", "no such file"),
    # Found after teacher sampling and two evaluations.
    *_each(
        "distill",
        {
            "sequence.rows": (0, 30),
            "sequence.row_length": (0,),
            "sequence.microbatches": (0,),
            "sequence.epochs": (0,),
            "sequence.too_long": ("chop",),
            "sequence.curriculum": (0,),
            "sequence.log_every": (0,),
            "sequence.checkpoint_every": (0,),
            "sequence.optimizer.name": ("adm",),
            "logit.beta": (-0.5, 2.0),
            "logit.temperature": (0.0,),
            "logit.top_k": (0,),
            "on_policy.beta": (7.0,),
            "on_policy.on_policy_share": (1.5,),
            "on_policy.warm_start": (-0.5,),
            "on_policy.steps": (0,),
            "on_policy.prompts": (0,),
            "on_policy.row_length": (3000,),
            "on_policy.optimizer.warmup_steps": (200,),
            "on_policy.sampling_temperature": (-1.0,),
            "data.samples": (0,),
            "data.temperature": (0.0,),
            "data.form": ("chain",),
            "data.ngram": (0,),
            "methods": ((), ("sequence", "sequence")),
            "distill_then_rl.method": ("rl_only",),
            "distill_then_rl.share": (0.0,),
            "distill_then_rl.rl_share": (-1.0,),
            "rl_only.group": (1,),
            "rl_only.steps": (0,),
            "rl_only.lora.rank": (4,),
            "lora.rank": (-1,),
            "lora.alpha": (0.0,),
            "lora.targets": ("(", ""),
            "teacher": ("runs/{name}/hf", "runs/{/hf"),
            "student": ("",),
            "num_problems": (0,),
            "task": ("", "gsm9k"),
        },
    ),
    ("distill", {"methods": ("logits",)}, "config.methods", "did you mean logit?"),
    ("distill", {"teacher": ""}, "config.teacher", "data.responses"),
    ("distill", {"on_policy.group": 2, "on_policy.sampling_temperature": 0.0},
     "on_policy.sampling_temperature", "equal"),
    ("tiny_distill", {"problems": {"tiny_maths": 3}}, "config.problems", "tiny_maths"),
    ("tiny_distill", {"base.model.num_heads": 3, "base.model.num_kv_heads": 2}, "base.model",
     "multiple"),
    ("tiny_distill", {"base.pretrain.documents": 0}, "base.pretrain.documents", "at least 1"),
    *_each(
        "tiny",
        {
            "model.family": ("gpt",),
            "model.num_layers": (0, 10**30),
            "model.vocab_size": (500,),
            "tokenizer.vocab_size": (10,),
            "tokenizer.documents": (0,),
            "pretrain.rows": (0,),
            "r1_zero.group": (1,),
            "r1_zero.problems": ({}, {"tiny_math": 0}, {"tiny_maths": 4}),
            "cold_start.per_problem": (0,),
            "cold_start.shots": (-1,),
            "cold_start.temperature": (0.0,),
            "cold_start.max_new_tokens": (4096,),
            "cold_start.sft.epochs": (0,),
            "rejection_sft.ngram": (0,),
            "rejection_sft.general.samples": (0,),
            "r1.helpful.weight": (NAN,),
            "r1.rl.rewards": ("accuracy=1",),
            "verifiers.problems": ({},),
            "verifiers.completions": (0,),
            "verifiers.completion_temperature": (0.0,),
            "verifiers.outcome_at": ("end",),
            "verifiers.delimiter": ("",),
            "verifiers.bench_problems": (1,),
            "search.budgets": ((2, 4), (0, 1), ()),
            "search.tree_arms": ((3,),),
            "search.aggregation": ("median",),
            "search.wait": ("",),
            "search.shots": (0,),
            "search.task": ("tiny_maths",),
            "distill.methods": (("sequence", "logits"),),
            "evaluation.votes.samples": (1,),
        },
    ),
    ("tiny", {"model.tie_embeddings": False}, "verifiers.language_share", "tie_embeddings"),
]  # fmt: skip


def changed(entry: str, changes: Mapping[str, Any], folder: Path) -> Any:
    """The entry point's config, right but for the changes."""
    config = ENTRIES[entry].make()
    with config.unlocked(), config.ignore_type():
        for path, value in {**ENTRIES[entry].right, **changes}.items():
            *parents, name = path.split(".")
            section = config
            for parent in parents:
                section = section[parent]
            if isinstance(value, str):
                value = value.replace("EXITING", str(folder / "exiting.py"))
                value = value.replace("BROKEN", str(folder / "broken.py"))
            if value is ABSENT:
                del section[name]
            else:
                section[name] = value
    return config


def make_files(folder: Path) -> None:
    """Reward files that do not load."""
    (folder / "exiting.py").write_text("import sys\nsys.exit(1)\n")
    (folder / "broken.py").write_text("def reward(:\n")


def lines_of(case: Case, folder: Path) -> list[str]:
    """What the entry point says of a case, in lines; it must leave nothing behind."""
    entry, changes, _, _ = case
    workdir = folder / "work"
    try:
        ENTRIES[entry].run(changed(entry, changes, folder), str(workdir))
    except (ValueError, OSError) as error:
        assert not workdir.exists(), f"{case}: something was written first"
        return list(getattr(error, "mistakes", [str(error)]))
    raise AssertionError(f"{case}: accepted")


def is_clear(case: Case, lines: list[str]) -> bool:
    """Whether there is one line, and it names the field and has the words."""
    _, _, field, words = case
    return len(lines) == 1 and "\n" not in lines[0] and field in lines[0] and words in lines[0]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_files(folder)
        clear = 0
        for case in CASES:
            lines = lines_of(case, folder)
            clear += is_clear(case, lines)
            if not is_clear(case, lines):
                print(case, *lines, sep="\n    ")
    print(f"{len(CASES)} bad inputs, {clear} one clear line")


if __name__ == "__main__":
    main()
