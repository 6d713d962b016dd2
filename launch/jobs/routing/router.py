"""Runs routes on training problems, grades them, and fits, compares and calibrates routers."""

import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from launch.jobs.asked import LocalModel, Opened
from launch.jobs.routing.router_head import hidden_fit
from launch.parts.report import format_figure
from launch.report import figures, results
from launch.report.figures import Axis, Panel
from launch.schema.router import RouterConfig
from models.decoding.sampling import SamplingParams
from models.files import read_jsonl, write_jsonl
from reasoning.effort import asked
from reasoning.generation.generator import fold_seed
from reasoning.problem import Problem
from reasoning.prompts import PromptTemplate
from reasoning.router import fitting
from reasoning.router.calibration import Calibration
from reasoning.router.choosing import PredictiveRouter
from reasoning.router.hidden import HiddenFeatures
from reasoning.router.metrics import FIGURES
from reasoning.router.outcomes import OutcomeTable, read_outcomes
from reasoning.router.route import LONG_CHAIN, VERIFIER_SEARCH, VOTE, Promise, Route
from reasoning.search.interface import Policy, SearchMethod
from reasoning.search.methods import EMPTY_CHAIN
from reasoning.search.prompting import Prompting
from reasoning.search.self_consistency import SelfConsistency
from reasoning.search.stopping import AdaptiveVote
from reasoning.server_client.response_log import ResponseLog
from reasoning.statistics import shares_with_ci
from reasoning.tasks import Task, get_task
from reasoning.verifiers import Verifier
from train.progress import Progress

# Problems that are answered together, and written to the log together.
_BATCH = 64
# Promises that every report tries on the held-out outcomes.
TRIED = ("loss=0.01", "loss=0.02", "loss=0.05")


def method_of(route: Route) -> SearchMethod:
    """Returns the search method that a route runs."""
    if not route.thinking:
        return Prompting(prefill=EMPTY_CHAIN)
    if route.kind == VOTE:
        return AdaptiveVote()
    return SelfConsistency("score") if route.kind == VERIFIER_SEARCH else Prompting()


def read_routes(config: RouterConfig) -> tuple[tuple[Route, ...], OutcomeTable | None]:
    """Returns the routes, and the user's outcomes if there are any.

    A name in a file of outcomes that is no route stands for a model that answers by long chains.

    Raises:
      OSError, ValueError: the file is wrong or too small.
    """
    if not config.outcomes:
        return tuple(Route.parse(text) for text in config.routes), None
    table = read_outcomes(Path(config.outcomes).expanduser(), config.cost_of(), config.routes)
    fitting.check_size(table)

    def route(name: str) -> Route:
        try:
            return Route.parse(name)
        except ValueError:
            return Route(LONG_CHAIN, config.budget, model=name)

    return tuple(map(route, table.names)), table


def draw_problems(config: RouterConfig) -> dict[str, tuple[Task, list[Problem]]]:
    """Returns the training problems by task.

    Raises:
      ValueError: there are too few in all.
    """
    drawn = {}
    for spec in config.tasks:
        task, seed = get_task(spec), fold_seed(config.seed, "router", spec)
        # A task that is evaluated whole has few problems, perhaps fewer than asked for.
        count = None if task.evaluated_whole else config.problems
        drawn[spec] = (task, task.problems("train", count, seed)[: config.problems])
    if sum(len(problems) for _, problems in drawn.values()) < fitting.FEWEST:
        raise ValueError(f"config.tasks has fewer than {fitting.FEWEST} problems: give more")
    return drawn


def run_routes(
    config: RouterConfig,
    opened: Opened,
    model: LocalModel,
    routes: Sequence[Route],
    drawn: Mapping[str, tuple[Task, Sequence[Problem]]],
    verifier: Verifier | None,
    directory: Path,
    should_stop: Callable[[], bool],
) -> bool:
    """Runs every route on every problem and logs the graded outcomes; what is logged stays.

    Args:
      config: seed, temperature and rows.
      opened: the model.
      model: its template.
      routes: the routes.
      drawn: the problems by task.
      verifier: of `verifier_search`; None without such a route.
      directory: gets `outcomes_TASK.jsonl`.
      should_stop: called between batches.

    Returns:
      Whether all is done.
    """
    total = len(routes) * sum(len(problems) for _, problems in drawn.values())
    progress = Progress("routes", total, 0)
    done = 0
    for number, (spec, (task, problems)) in enumerate(drawn.items()):
        policy = Policy(
            generator=opened.generator, steps=opened.steps, task=task, template=model.template,
            max_new_tokens=1, step_tokens=1, typical_tokens=1,
            sampling=SamplingParams(temperature=config.temperature), model=opened.config,
            rows=config.rows,
        )  # fmt: skip
        settings = {
            "model": model.name, "weights": model.version, "template": model.template_name,
            "task": spec, "problems": len(problems), "seed": config.seed,
            "temperature": config.temperature, "verifier": config.verifier,
            "named_budgets": config.named_budgets,
        }  # fmt: skip
        with ResponseLog(directory / f"outcomes_{number}.jsonl", settings) as log:
            for route in routes:
                limit = route.budget if route.thinking else route.limit
                ready = dataclasses.replace(policy, max_new_tokens=limit)
                if config.named_budgets:
                    template = functools.partial(_told, model.template, route)
                    ready = dataclasses.replace(ready, template=template)
                for first in range(0, len(problems), _BATCH):
                    batch = problems[first : first + _BATCH]
                    keys = [f"{route.name} {first + i}" for i in range(len(batch))]
                    done += len(batch)
                    if all(key in log.keys for key in keys):
                        continue
                    seed = fold_seed(config.seed, spec, route.name, first)
                    results = method_of(route)(ready, verifier, batch, route.samples, seed=seed)
                    verdicts = task.verify_all(batch, [each.answer or "" for each in results])
                    for key, result, verdict in zip(keys, results, verdicts, strict=True):
                        if key in log.keys:
                            continue
                        answer, problem = result.answer or "", result.problem
                        log.append(
                            {
                                "key": key, "route": route.name, "task": spec,
                                "question": problem.question, "answer": result.answer,
                                "correct": task.score(problem, answer, verdict),
                                "tokens": result.spent.generated_tokens,
                                "response": result.response,
                            }
                        )  # fmt: skip
                    progress.update(done, {})
                    if should_stop():
                        progress.close()
                        return False
    progress.close()
    return True


def _told(template: PromptTemplate, route: Route, question: str) -> str:
    return template(asked(question, route))


def collect(
    directory: Path, routes: Sequence[Route], tasks: Sequence[str], path: Path
) -> tuple[OutcomeTable, list[str]]:
    """Joins the logs into one file of outcomes, and reads it.

    Returns:
      The table, and the task of each question.
    """
    rows: dict[tuple[str, str], dict[str, Any]] = {}
    for number in range(len(tasks)):
        # The first line of a log holds its settings.
        for _, record in itertools.islice(
            read_jsonl(directory / f"outcomes_{number}.jsonl"), 1, None
        ):
            index = record["key"].rpartition(" ")[2]
            entry = {"correct": float(record["correct"]), "tokens": record["tokens"]}
            row = rows.setdefault(
                (record["task"], index),
                {"question": record["question"], "task": record["task"], "outcomes": {}},
            )
            row["outcomes"][record["route"]] = entry
    names = [route.name for route in routes]
    write_jsonl(path, rows.values())
    table = read_outcomes(path, names=names)
    return table, [row["task"] for row in rows.values()]


def fits_for(
    kinds: Sequence[str], opened: Opened | None, model: LocalModel | None
) -> dict[str, fitting.Fit]:
    """Returns the fit of each kind; `hidden` needs a model."""
    fits = {kind: fitting.FITS[kind] for kind in kinds if kind in fitting.FITS}
    if "hidden" in kinds:
        assert model is not None and opened is not None
        generator: Any = opened.generator
        features = HiddenFeatures(model.model, generator.params, model.tokenizer, model.template)
        fits["hidden"] = hidden_fit(features)
    return fits


def fit_all(
    config: RouterConfig,
    routes: Sequence[Route],
    table: OutcomeTable,
    fits: Mapping[str, fitting.Fit],
    directory: Path,
) -> dict[str, Any]:
    """Compares the kinds, fits and saves each, and returns the report.

    Args:
      config: folds, share held out, promise and seed.
      routes: the routes.
      table: their outcomes.
      fits: kind -> its fit.
      directory: gets `KIND/` for each kind, which `reasoning.router.load` opens.
    """
    predicted = {
        kind: fitting.cross_validated(fit, routes, table, config.folds, config.seed)
        for kind, fit in fits.items()
    }
    kinds = fitting.figures(table, predicted, config.seed)
    promise = Promise.parse(config.promise) if config.promise else None
    for kind, fit in fits.items():
        fitted = fitting.fit_router(
            fit, routes, table, held_out=config.held_out, promise=promise, seed=config.seed
        )
        fitted.save(directory / kind, kind)
        kinds[kind]["promises"] = _promises(fitted)
    best = max(fits, key=lambda kind: kinds[kind]["apgr"]["mean"] or 0)
    return {
        "questions": len(table.questions),
        "routes": {
            name: {
                "accuracy": shares_with_ci(table.outcomes.correct[:, r]),
                "cost": float(table.outcomes.cost[:, r].mean()),
            }
            for r, name in enumerate(table.names)
        },
        "best_kind": best,
        "kinds": kinds,
    }


def _promises(fitted: PredictiveRouter) -> dict[str, Any]:
    """Returns what each promise of a loss costs on the held-out outcomes."""
    calibration = fitted.calibration
    assert isinstance(calibration, Calibration)
    outcomes, reference = calibration.outcomes, calibration.reference
    rows, found = np.arange(len(outcomes.correct)), {}
    for text in TRIED:
        chosen = calibration.chosen(calibration.threshold(Promise.parse(text)))
        found[text] = {
            "accuracy": float(outcomes.correct[rows, chosen].mean()),
            "cost": float(outcomes.cost[rows, chosen].mean()),
            "reference_accuracy": float(outcomes.correct[:, reference].mean()),
            "reference_cost": float(outcomes.cost[:, reference].mean()),
        }
    return found


def print_report(report: Mapping[str, Any]) -> None:
    """Prints the routes and the kinds of routers."""
    console = Console(width=130)
    table = Table("route", "accuracy (%)", "tokens", title=f"{report['questions']} questions")
    for name, each in report["routes"].items():
        table.add_row(name, format_figure(each["accuracy"], True), f"{each['cost']:.1f}")
    console.print(table)
    table = Table(
        "router", "APGR", "CPT(50)", "CPT(80)", "CPT(95)", "tokens for 95 %", "calibration error",
        title="cross-validated [95 % interval over questions]",
    )  # fmt: skip
    for name, each in report["kinds"].items():
        shown = [_shown(each[key]) for key in FIGURES]
        table.add_row(name, *shown, f"{each['ece']:.3f}")
    console.print(table)


def _shown(figure: Mapping[str, Any]) -> str:
    if figure["mean"] is None:
        return "no gap"
    low, high = figure["ci95"]
    return f"{figure['mean']:.2f} [{low:.2f}, {high:.2f}]"


def plot(path: Path, report: Mapping[str, Any]) -> None:
    """Plots accuracy against cost: a line for each kind, and a point for each fixed route."""
    panel = Panel(
        Axis("mean cost", "tokens a question"),
        Axis("accuracy", "%", bounds=(0, 100)),
        results.router_series(report),
        f"n = {report['questions']} questions, cross-validated; bars and bands: 95 % intervals over"
        " questions",
    )
    figures.save(path, [panel])
