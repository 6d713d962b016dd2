"""Prints what `check.check` found: a table of programs, the iteration, and what to change."""

from collections.abc import Mapping
from typing import Any

from rich.console import Console
from rich.table import Table

from launch.preflight.machines import GIB

UNITS = {"compute": "computing", "memory": "memory", "links": "links"}


def print_report(row: Mapping[str, Any]) -> None:
    """Prints the figures of one config on one machine."""
    console = Console(width=110)
    mesh = " x ".join(f"{axis} {size}" for axis, size in row["mesh"].items()) or "one device"
    console.print(
        f"[bold]Prediction, not a measurement[/bold]: {row['model']}, {row['objective']}, on"
        f" {row['topology']} ({row['devices']} x {row['device']}, mesh {mesh})."
    )
    console.print(
        f"{row['params'] / 1e9:.2f} billion weights; {row['rows']} rows of {row['row_length']:,}"
        f" tokens in {row['microbatches']} microbatches."
    )
    console.print(_memory(row))
    if any(program.get("seconds") for program in row["programs"]):
        console.print(_work(row))
        console.print(_messages(row))
    if "seconds" in row:
        console.print(_iteration(row))
    for name, size in row.get("largest", {}).items():
        console.print(f"largest that fits, {name}: {size:,}")
    for line in row.get("advice", ()):
        console.print(f"to change: {line}", soft_wrap=True)
    answer = {True: "yes", False: "NO", None: "unknown: no accelerator"}[row["fits"]]
    console.print(f"fits: {answer}, {row['peak_bytes'] / GIB:.2f} GiB a device at most")


def memory_kinds(program: Mapping[str, Any]) -> dict[str, int]:
    """Returns the bytes of a program on one device by kind; they sum to its peak."""
    known = dict(program["temporaries"])
    rest = program["temporary_bytes"] - sum(known.values())
    if rest < 0:  # The compiler needs less than what was thought to be known.
        known, rest = {}, program["temporary_bytes"]
    results = program.get("results_bytes", 0)
    return {
        **program["arguments"], **program["held"], **known,
        "activations and other": rest, "results": results,
    }  # fmt: skip


def _memory(row: Mapping[str, Any]) -> Table:
    table = Table("GiB a device", *[program["name"] for program in row["programs"]])
    kinds = [memory_kinds(program) for program in row["programs"]]
    for kind in dict.fromkeys(name for each in kinds for name in each):
        table.add_row(kind, *[_gib(each.get(kind, 0)) for each in kinds])
    peaks = [program["peak_bytes"] for program in row["programs"]]
    limit = row["hbm_bytes"]
    marked = [_gib(peak) + ("" if not limit or peak <= limit else " NO") for peak in peaks]
    table.add_row("peak" + (f" of {limit / GIB:.0f}" if limit else ""), *marked)
    return table


def _gib(size: float) -> str:
    return f"{size / GIB:.2f}" if size else "-"


def _work(row: Mapping[str, Any]) -> Table:
    table = Table("program", "runs", "TFLOP", "GB moved", "GB received", "seconds", "bound by")
    for program in row["programs"]:
        if not program["cost"]:
            why = "not readable" if "unread" in program else "does not fit"
            table.add_row(program["name"], f"{program['runs']:g}", *[why] * 4, "")
            continue
        cost, seconds = program["cost"], program["seconds"]
        received = sum(each["bytes"] for each in cost["collectives"].values())
        table.add_row(
            program["name"], f"{program['runs']:g}", f"{cost['flops'] / 1e12:,.1f}",
            f"{cost['bytes'] / 1e9:,.1f}", f"{received / 1e9:,.1f}",
            " / ".join(f"{seconds[name]:.3g}" for name in UNITS), UNITS[program["bound_by"]],
        )  # fmt: skip
    table.caption = "of one device and one run; seconds of computing / memory / links"
    return table


def _messages(row: Mapping[str, Any]) -> Table:
    table = Table("program", "collective", "how many", "GB received", "largest, MB")
    for program in row["programs"]:
        for kind, each in (program["cost"] or {"collectives": {}})["collectives"].items():
            table.add_row(
                program["name"], kind, f"{each['count']:,.0f}", f"{each['bytes'] / 1e9:,.2f}",
                f"{each['largest'] / 1e6:,.2f}",
            )  # fmt: skip
    return table


def _iteration(row: Mapping[str, Any]) -> Table:
    table = Table("an iteration, at least", "")
    for name, seconds in row["seconds_by_program"].items():
        table.add_row(f"{name}, seconds", f"{seconds:,.2f}")
    table.add_row("in all, seconds", f"{row['seconds']:,.2f}")
    table.add_row("tokens trained on a second", f"{row['trained_tokens_per_second']:,.0f}")
    if "sampled_tokens_per_second" in row:
        table.add_row(
            f"tokens sampled a second, responses of {row['response_tokens']:,}",
            f"{row['sampled_tokens_per_second']:,.0f}",
        )
    table.add_row("MFU of the train step, at most", f"{row['mfu_of_train_step']:.0%}")
    table.add_row("MFU of the iteration, at most", f"{row['mfu']:.0%}")
    steps = "1,000 updates" if row["steps"] is None else f"the recipe's {row['steps']:,} updates"
    table.add_row(f"chip-hours of {steps}", f"{row['chip_hours']:,.0f}")
    return table
