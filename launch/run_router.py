r"""Fits a router, which chooses for each query how to answer it, on the outcomes of its routes.

    python -m launch.run_router --config=configs/router.py --config.model=DIR --workdir=runs/router

`workdir` gets outcomes.jsonl (what every route did on every question), a folder for each kind of
router, which `reasoning.router.load` opens, report.json and router.png. The same command continues
a run that was interrupted or killed. With `--config.outcomes=FILE` no model is run.
"""

import time
from pathlib import Path

from absl import flags

from launch import schema
from launch.parts import runtime
from launch.schema.router import RouterConfig

_CONFIG = runtime.define_config("configs/router.py")
_WORKDIR = flags.DEFINE_string("workdir", "runs/router", "where everything is written")


def main(argv: list[str]) -> None:
    """Runs the job as the flags say."""
    del argv
    runtime.refuse_several("run_router")
    run(runtime.read_config(_CONFIG, RouterConfig), _WORKDIR.value)


def run(config: object, workdir: str) -> None:
    """Runs the job that the module describes.

    Raises:
      Interrupted: a signal ended it; the same call continues from there.
    """
    loaded = schema.load(RouterConfig, config)
    with runtime.working_directory(workdir) as directory:
        _run(loaded, directory)


def _run(config: RouterConfig, directory: Path):
    from launch.jobs.routing import router
    from launch.parts import machine
    from launch.parts.report import write_report

    start = time.monotonic()
    routes, table = router.read_routes(config)
    if table is not None:
        report = router.fit_all(config, routes, table, router.fits_for(config.kinds, None, None),
                                directory)  # fmt: skip
    else:
        report = _with_model(config, routes, directory)
    report |= {
        "config": schema.as_dict(config),
        "wall_seconds": time.monotonic() - start,
        "machine": machine.describe(),
    }
    write_report(directory / "report.json", report)
    router.plot(directory / "router.png", report)
    router.print_report(report)
    print(f"report: {directory / 'report.json'}")


def _with_model(config, routes, directory):
    from launch.jobs.asked import LocalModel
    from launch.jobs.routing import router
    from launch.parts.endings import Interrupted
    from models.hf.load import load_scalar_model
    from reasoning.verifiers.process import ProcessVerifier
    from train.preemption import Stopper

    model = LocalModel(config.model, config.template)
    drawn = router.draw_problems(config)
    prompts = [model.template(p.question) for _, problems in drawn.values() for p in problems]
    model.check_prompts(prompts, max(route.limit for route in routes))
    with Stopper(print) as stopper, model.open(config.rows) as opened:
        verifier = None
        if config.verifier:
            loaded = load_scalar_model(config.verifier)
            verifier = ProcessVerifier(
                loaded.model, loaded.params, loaded.tokenizer,
                generator_tokenizer=model.tokenizer, delimiter="\n",
            )  # fmt: skip
        done = router.run_routes(
            config, opened, model, routes, drawn, verifier, directory,
            lambda: stopper.signal_name is not None,
        )  # fmt: skip
        if not done:
            raise Interrupted(stopper.signal_name)
        table, tasks = router.collect(directory, routes, list(drawn), directory / "outcomes.jsonl")
        fits = router.fits_for(config.kinds, opened, model)
        report = router.fit_all(config, routes, table, fits, directory)
    report["tasks"] = {
        spec: {
            name: float(table.outcomes.correct[[task == spec for task in tasks], r].mean())
            for r, name in enumerate(table.names)
        }
        for spec in drawn
    }
    return report


if __name__ == "__main__":
    runtime.run_main(main, RouterConfig)
