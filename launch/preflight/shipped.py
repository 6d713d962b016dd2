"""Checks the full-scale recipes of `configs/`, and writes the page that shows the figures."""

import importlib.metadata
import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from configs import distill_full, r1_full
from launch.parts.report import write_report
from launch.preflight.machines import GIB
from models.files import read_json, write_atomically

ROOT = Path(__file__).parents[2]
COMMAND = "python -m launch.run_preflight --shipped --output=docs/preflight.json"
HEAD = """# What the full-scale recipes need

Predictions, not measurements: **nothing of these sizes has been run.** The programs of each recipe
were compiled for the TPU slice that the table names. Memory is what the compiler says. Operations,
traffic and messages are counted in the compiled programs; the slowest of the three, at the speed
that Google publishes, bounds the time from below. A real run is slower.

- Command: `{command}`
- Compiler: {compiler}
- One recipe, with all its figures:
  `python -m launch.run_preflight --config=configs/RECIPE --topology=TOPOLOGY`

The stages of R1 that have the same programs are one row: `cold_start` is also `rejection_sft`, and
`reasoning_rl` also `r1_zero` and `r1_rl`. Responses are taken to be as long as the recipe allows,
so sampling is at its slowest. Chip-hours are those of the recipe's updates; for fine-tuning, whose
number of updates depends on the data, of 1,000.

"""


def recipes() -> Iterator[tuple[str, str]]:
    """Yields every shipped recipe and the topology that it is for."""
    for size, (devices, _) in r1_full.DEVICES.items():
        for stage in ("reasoning_rl", "cold_start"):
            topology = {64: "v5p:4x4x4", 512: "v5p:8x8x8"}[devices]
            yield f"r1_full.py:{stage},{size}", topology
    for student in distill_full.STUDENTS:
        yield f"distill_full.py:{student}", "v5p:4x4x4"


def check_all(output: Path) -> None:
    """Checks the recipes that `output` does not have yet, one at a time, and writes the page.

    Args:
      output: a JSON file, recipe -> figures; the page is beside it, with the ending `.md`.
    """
    found: dict[str, Any] = read_json(output, "remove it") if output.exists() else {}
    found["command"], found["compiler"] = COMMAND, f"libtpu {_libtpu()}"
    for recipe, topology in recipes():
        if recipe in found:
            continue
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "row.json"
            command = [
                sys.executable, "-m", "launch.run_preflight", f"--config=configs/{recipe}",
                f"--topology={topology}", f"--output={path}",
            ]  # fmt: skip
            done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
            if not path.exists():
                found[recipe] = {"topology": topology, "failed": done.stderr.strip()[-300:]}
            else:
                found[recipe] = json.loads(path.read_text())
        write_report(output, found)
        write_atomically(output.with_suffix(".md"), page(found))


def _libtpu() -> str:
    try:
        return importlib.metadata.version("libtpu")
    except importlib.metadata.PackageNotFoundError:
        return "of an unknown version"


def page(found: Mapping[str, Any]) -> str:
    """Returns the page in Markdown."""
    lines = [
        "| recipe | TPUs | GiB a device, at most | of | seconds an iteration | bound by |"
        " MFU of the train step | tokens trained on a second | chip-hours |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    advice = []
    for recipe, row in found.items():
        if recipe in ("command", "compiler"):
            continue
        if "failed" in row:
            lines.append(f"| `{recipe}` | {row['topology']} | failed | | | | | | |")
            continue
        cells = [f"`{recipe}`", row["topology"]]
        cells += [f"{row['peak_bytes'] / GIB:.1f}", f"{row['hbm_bytes'] / GIB:.0f}"]
        if "seconds" in row:
            slowest = max(row["seconds_by_program"], key=row["seconds_by_program"].__getitem__)
            bound = next(p["bound_by"] for p in row["programs"] if p["name"] == slowest)
            cells += [
                f"{row['seconds']:,.0f}", f"{slowest}: {bound}", f"{row['mfu_of_train_step']:.0%}",
                f"{row['trained_tokens_per_second']:,.0f}", f"{row['chip_hours']:,.0f}",
            ]  # fmt: skip
        else:
            unread = any("unread" in program for program in row["programs"])
            cells += ["not predicted" if unread else "does not fit", "", "", "", ""]
        lines.append("| " + " | ".join(cells) + " |")
        advice += [f"- `{recipe}`: {line}" for line in row.get("advice", ())]
    text = HEAD.format(command=COMMAND, compiler=found["compiler"]) + "\n".join(lines) + "\n"
    if missing := [f"`{recipe}`" for recipe, _ in recipes() if recipe not in found]:
        text += f"\nNot computed yet: {', '.join(missing)}.\n"
    return text + ("\nWhat the program says to change:\n\n" + "\n".join(advice) + "\n") * bool(
        advice
    )
