r"""Collects training data for distillation from a teacher: a server or a local checkpoint.

    python -m launch.run_teacher --config=configs/teacher.py --config.task=gsm8k \
        --config.teacher.server=http://localhost:8000 --config.teacher.model=NAME \
        --workdir=runs/teacher

`workdir` gets responses.jsonl (every response of the teacher, unchanged), data.jsonl (the right and
well-formed ones, for `launch.run_sft`) and summary.json. The same command continues a run that was
interrupted or killed; it asks nothing twice, and `max_cost` holds for all calls together. A larger
`--config.problems` extends the run.
"""

import dataclasses
import json
import time

from absl import flags
from ml_collections import ConfigDict

from launch import schema
from launch.parts import runtime
from launch.schema.teacher import TeacherConfig


def main(argv: list[str]) -> None:
    """Runs the job as the flags say."""
    del argv
    runtime.refuse_several("run_teacher")
    run(
        runtime.read_config(_CONFIG, TeacherConfig),
        _WORKDIR.value,
        estimate_only=_ESTIMATE_ONLY.value,
    )


def run(config: TeacherConfig | ConfigDict, workdir: str, estimate_only: bool = False) -> None:
    """Runs the job that the module describes."""
    config = schema.load(TeacherConfig, config)
    with runtime.working_directory(workdir) as directory:
        _run(config, directory, estimate_only)


def _run(config, directory, estimate_only):
    from launch.parts.endings import Interrupted
    from models.decoding.sampling import SamplingParams
    from reasoning.server_client.response_log import ResponseLog
    from reasoning.training_data import teacher_data

    problems = _problems(config)
    generator, prompt = _teacher(config)
    items = teacher_data.make_items(problems, prompt)
    sampling = SamplingParams(temperature=config.temperature, top_p=config.top_p)
    with ResponseLog(directory / "responses.jsonl", _settings(config)) as log:
        missing = [item for item in items if item.key not in log.keys]
        print(f"{len(items)} prompts, {len(items) - len(missing)} already answered")
        if log.dropped_bytes:
            print(f"dropped {log.dropped_bytes} bytes of an unfinished line")
        if log.last is not None and hasattr(generator, "ledger"):
            generator.ledger.spent_before = log.last["spent"]
        _print_estimate(generator, missing, config)
        if estimate_only:
            return
        stopped_by, fault = _collect(generator, log, items, sampling, config)
        if stopped_by:
            raise Interrupted(stopped_by)
        summary = _write(log, items, config.form, directory, generator)
    _print_summary(summary, directory)
    if fault is not None:
        raise fault


def _problems(config):
    from reasoning.tasks import get_task
    from reasoning.training_data import teacher_data

    if config.task:
        return get_task(config.task).problems("train", config.problems, config.seed)
    return teacher_data.read_prompts(config.prompts)[: config.problems]


def _teacher(config):
    """Returns the generator, which has been reached and checked, and the prompt template."""
    from launch.parts.servers import open_server
    from reasoning.prompts import R1_SYSTEM, get_template

    teacher = config.teacher
    if teacher.checkpoint:
        from models.checkpoint import load_model
        from reasoning.generation.jax_generator import JaxGenerator

        model, params, tokenizer = load_model(teacher.checkpoint)
        template = get_template(config.template, tokenizer)
        return JaxGenerator(model, params, tokenizer, rows=teacher.rows), template
    settings = dataclasses.asdict(teacher)
    for name in ("checkpoint", "rows"):
        del settings[name]
    generator = open_server(**settings)
    generator.check()
    if not config.template.startswith("chat"):
        return generator, get_template(config.template, None)
    system = [{"role": "system", "content": R1_SYSTEM}] if config.template == "chat_r1" else []
    return generator, lambda question: [*system, {"role": "user", "content": question}]


def _settings(config):
    """Returns the settings that responses depend on; the number of problems may grow later."""
    names = ("template", "num_samples", "max_new_tokens", "temperature", "top_p", "seed")
    teacher = config.teacher.model or config.teacher.checkpoint
    return {name: getattr(config, name) for name in names} | {"teacher": teacher}


def _print_estimate(generator, missing, config):
    from reasoning.server_client.openai_generator import OpenAIGenerator

    if not isinstance(generator, OpenAIGenerator) or not missing:
        return
    estimate = generator.estimate(
        [item.prompt for item in missing],
        num_samples=config.num_samples,
        max_new_tokens=config.max_new_tokens,
    )
    print(
        f"to ask: {estimate.requests} prompts of about {estimate.prompt_tokens:,} tokens, for at"
        f" most {estimate.completion_tokens:,} tokens of answers"
    )
    if generator.ledger.prices:
        cap = generator.ledger.max_cost
        capped = "" if cap is None else f"; stops before {cap:g} is exceeded"
        print(f"cost: at most about {estimate.cost:.4g}{capped}", flush=True)


def _collect(generator, log, items, sampling, config):
    """Asks for missing responses; returns the signal and the error that ended it, or None each."""
    from reasoning.training_data import teacher_data
    from train.preemption import Stopper
    from train.progress import Progress

    before = sum(item.key in log.keys for item in items)
    progress = Progress("teacher", len(items), before)

    def show(collected):
        shown = {"failed": collected.failed}
        ledger = getattr(generator, "ledger", None)
        if ledger is not None:
            shown |= {"tokens": ledger.usage.completion_tokens, "retries": ledger.usage.retries}
            if ledger.prices:
                shown["cost"] = ledger.spent
        progress.update(before + collected.answered, shown)

    try:
        with Stopper(progress.say) as stopper:
            collected = teacher_data.collect(
                generator,
                log,
                items,
                num_samples=config.num_samples,
                max_new_tokens=config.max_new_tokens,
                sampling=sampling,
                seed=config.seed,
                batch=max(1, config.teacher.rows // config.num_samples),
                should_stop=lambda: stopper.signal_name is not None,
                on_answer=show,
            )
        if collected.failed:
            print(f"{collected.failed} prompts failed, the last: {collected.last_failure}")
    except (OSError, ValueError) as error:
        return None, error
    finally:
        progress.close()
    return stopper.signal_name, None


def _write(log, items, form, directory, generator):
    from launch.parts.report import write_report
    from reasoning.training_data import teacher_data

    start = time.monotonic()
    summary = teacher_data.write_examples(
        directory / "data.jsonl", teacher_data.grade(log, items, form)
    )
    summary["prompts"] = len(items)
    summary["verify_seconds"] = time.monotonic() - start
    ledger = getattr(generator, "ledger", None)
    if ledger is not None:
        # This counts the present run only; the usage of earlier runs is not known here.
        summary["usage"] = vars(ledger.usage)
    write_report(directory / "summary.json", summary)
    return summary


def _print_summary(summary, directory):
    from rich.console import Console
    from rich.table import Table

    from launch.parts.report import format_figure

    table = Table("what", "value", title="mean [95 % interval] over problems")
    table.add_row("prompts answered", f"{summary['problems']} of {summary['prompts']}")
    table.add_row("responses kept", f"{summary['kept']} of {summary['responses']}")
    for name, figure in summary["metrics"].items():
        share = name != "response_tokens"
        table.add_row(name + (" (%)" if share else ""), format_figure(figure, share))
    for fault, count in list(summary["faults"].items())[:8]:
        table.add_row(f"left out: {fault}", str(count))
    if "usage" in summary:
        table.add_row("usage of this run", json.dumps(summary["usage"]))
    Console(width=110).print(table, markup=False)
    print(f"data: {directory / 'data.jsonl'}")


if __name__ == "__main__":
    # Flags are global: defined here, they do not clash where a program imports several entry
    # points.
    _CONFIG = runtime.define_config("configs/teacher.py")
    _WORKDIR = flags.DEFINE_string("workdir", "runs/teacher", "where everything is written")
    _ESTIMATE_ONLY = flags.DEFINE_bool(
        "estimate_only", False, "print the estimate of cost, and stop"
    )
    runtime.run_main(main, TeacherConfig)
