"""Small run folders, made by the project's own writers, as each entry point leaves them."""

import json

import numpy as np

from launch.parts.report import write_report
from launch.parts.stages import RESULT_FILE, SETTINGS_FILE
from launch.report.sources import RECORD_FILE
from models.files import write_atomically, write_jsonl
from reasoning.search.common.evaluation import Measured
from reasoning.statistics import mean_with_ci, shares_with_ci
from train.metrics import MetricWriter

# What a model may write to break the page, or to load something.
HOSTILE = (
    "</script></pre><script>fetch('/x')</script><img src=//evil.example/a.png onerror=alert(1)>"
)


def figures(hits, n=20, tokens=30.0):
    right = np.arange(n) < hits
    return {
        "math/pass@1": shares_with_ci(right.astype(float)),
        "format": shares_with_ci(np.ones(n)),
        "response_tokens": mean_with_ci(tokens + np.arange(n)),
    }


def graded(hits, n=20, text="<think> x </think><answer> 3 </answer>"):
    return [
        {
            "task": "tiny_math", "question": f"What is {i} + 1?", "answer": str(i + 1),
            "prompt": f"User: What is {i} + 1?", "response": f"{text} {i}", "tokens": 9,
            "correct": i < hits, "reason": "equal" if i < hits else "no answer found",
            "well_formed": True,
        }
        for i in range(n)
    ]  # fmt: skip


def stage(folder, name, hits, *, settings=None, **fields):
    at = folder / name
    at.mkdir(parents=True, exist_ok=True)
    write_atomically(at / SETTINGS_FILE, json.dumps(settings or {"seed": 0}))
    write_jsonl(at / "graded.jsonl", graded(hits, text=fields.pop("text", "so 3")))
    result = {"wall_seconds": 12.5, "metrics": figures(hits), **fields}
    write_atomically(at / RESULT_FILE, json.dumps(result))
    return result


def rl_metrics(at, steps=60, text="so 3"):
    writer = MetricWriter(at)
    writer.resume(0)
    for step in range(1, steps + 1):
        line = {
            "loss": 1 / step, "reward": step / steps, "accuracy": step / steps / 2,
            "response_tokens": 20 + step, "reference_kl": 0.01 * step, "entropy": 2.0,
            "ratio_max": float("nan"), "seconds/sample": 0.5, "seconds/reward": 0.1,
            "seconds/prepare": 0.1, "seconds/source": 0.8, "seconds/train": 0.2,
        }  # fmt: skip
        if step % 20 == 0:
            line["test/math/pass@1"] = step / steps
        writer.write(step, line)
        if step in (1, steps):
            sample = {
                "prompt": "User: What is 1 + 2?", "response": f"{text} at {step}", "answer": "3",
                "reward": 0.5, "reasons": {"accuracy": "equal", "format": "no <think>"},
            }  # fmt: skip
            writer.write_samples(step, [sample])
    writer.close()


def record(folder, **fields):
    entry = {
        "command": "python -m launch.run_rl --config=configs/gsm8k_grpo.py", "state": "complete",
        "started": "2026-01-02 03:04:05 +0000", "seconds": 75.0, "code": "0123456789ab",
        "machine": {"processor": "A processor", "devices": "1 x cpu"},
        "versions": {"jax": "0.10.2"}, **fields,
    }  # fmt: skip
    write_atomically(folder / RECORD_FILE, json.dumps({"invocations": [entry]}))


def rl(folder, text="so 3", hits=15, done=True):
    """A run of `launch.run_rl`; not done: its report and its last result are missing."""
    settings = {"prompts": 4, "group": 8, "seed": 0}
    results = {"initial": stage(folder, "initial", 5, text=text)}
    results["rl"] = stage(folder, "rl", hits, settings=settings, text=text)
    rl_metrics(folder / "rl", text=text)
    warnings = [{"step": s, "kind": "no_signal", "message": f"nothing {text}"} for s in (5, 9)]
    write_atomically(folder / "rl" / "warnings.json", json.dumps(warnings))
    if done:
        record(folder)
        config = {"task": text, "optimizer": {"learning_rate": 1e-3}}
        write_report(
            folder / "report.json",
            {"config": config, "seeds": 1, "wall_seconds": 30.0, "stages": results},
        )
    else:
        record(folder, state="running")
        (folder / "rl" / RESULT_FILE).unlink()
    return folder


def measured(name, budget, hits, tokens):
    spent = {"generated_tokens": np.full(20, tokens), "flops": np.full(20, 1e6 * tokens)}
    return Measured(name, budget, np.arange(20) < hits, spent).summary()


def r1(folder, text="so 3"):
    """A run of `launch.run_r1` and `launch.run_search` with two seeds."""
    results = {}
    for seed in (0, 1):
        at = folder / f"seed_{seed}"
        results["base"] = stage(at, "base", 4 + seed, text=text)
        results["r1_zero"] = stage(at, "r1_zero", 14 + seed, text=text)
        rl_metrics(at / "r1_zero", text=text)
        bench = {"soft": {"f1": shares_with_ci(np.arange(20) < 12), "threshold": 0.4}}
        (at / "verifiers").mkdir()
        verified = {"wall_seconds": 5.0, "labels": {"solutions": 48}, "process_bench": bench}
        write_atomically(at / "verifiers" / RESULT_FILE, json.dumps(verified))
    found = [
        measured(name, budget, 8 + budget, 40 * budget)
        for name in ("majority", "beam") for budget in (1, 4)
    ]  # fmt: skip
    search = folder / "seed_0" / "search"
    search.mkdir()
    write_atomically(search / RESULT_FILE, json.dumps(found))
    paths = [
        {"steps": ["1 + 2 = 3", f"so {n} {text}"], "answer": str(n), "score": 0.1 * n,
         "chosen": n == 3}
        for n in (2, 3)
    ]  # fmt: skip
    write_jsonl(
        search / "measured_samples" / "beam.jsonl",
        [{"question": f"What is 1 + 2? {text}", "reference": "3", "paths": paths}],
    )
    findings = [{"finding": "math, R1-Zero less base"} | mean_with_ci([40.0, 50.0], 2)]
    part = {"part": "sums, R1-Zero less base", "least": 40, "verdict": "open"}
    claim = {"claim": "F1", "text": "RL teaches", "verdict": "open",
             "parts": [part | mean_with_ci([40.0, 50.0], 2)]}  # fmt: skip
    report = {"seeds": 2, "stages": results, "findings": findings, "claims": [claim]}
    write_report(folder / "report.json", report)
    return folder


def evaluation(folder, text="so 3"):
    """A run of `launch.run_eval` of two methods."""
    records = [
        {"model": "m", "task": "t", **measured(name, budget, hits, tokens)}
        for name, budget, hits, tokens in (("greedy", 1, 9, 30), ("majority@4", 4, 13, 120))
    ]
    write_report(folder / "report.json", {"settings": {"models": ["m"]}, "evaluations": records})
    write_jsonl(
        folder / "graded.jsonl",
        [{"model": "m", "method": m, **r} for m in ("greedy", "majority@4")
         for r in graded(9, text=text)],
    )  # fmt: skip
    return folder


def router(folder, text="linear"):
    """A run of `launch.run_router` with one kind."""
    share = shares_with_ci(np.arange(20) < 12)
    ratio = mean_with_ci([0.4, 0.6, 0.5])
    kind = {
        "apgr": ratio, "cpt50": ratio, "cpt80": ratio, "cpt95": ratio, "kept_cost": ratio,
        "ece": 0.05,
        "curve": {"cost": [10.0, 20.0, 40.0], "accuracy": [0.2, 0.5, 0.6]},
    }  # fmt: skip
    routes = {"direct": {"accuracy": share, "cost": 10.0}, "long": {"accuracy": share, "cost": 40}}
    write_report(folder / "report.json", {"questions": 20, "routes": routes, "kinds": {text: kind}})
    return folder


def distillation(folder, text="so 3"):
    """A run of `launch.run_distill` with two methods."""
    at, arms = folder / "seed_0", {}
    for name, hits, flops in (("teacher", 18, 0.0), ("base", 2, 0.0), ("sequence", 12, 3e7),
                              ("rl_only", 5, 1e8)):  # fmt: skip
        arms[name] = stage(at, name, hits, train_flops=flops, params=100, text=text)
    write_report(folder / "report.json", {"seeds": 1, "distill": arms})
    return folder


KINDS = {
    "rl": rl, "r1": r1, "evaluation": evaluation, "router": router, "distillation": distillation
}  # fmt: skip
