"""Counts how many bad inputs give one clear line: `python -m tests.bad_inputs`."""

import tempfile
import time
from pathlib import Path

from tests.models.hf import bad_checkpoints as checkpoints
from tests.train import bad_records as records


def main() -> None:
    """Tries every case of the tables and prints a line for each kind and each that is not clear."""
    kinds = {
        "checkpoints and tokenizers": {
            name: (lambda d, damage=damage: checkpoints.outcome(d, damage), value)
            for name, (damage, value) in checkpoints.CHECKPOINTS.items()
        },
        "chat templates": {
            name: (lambda d, source=source: checkpoints.rendering(d, source), value)
            for name, (source, value) in checkpoints.TEMPLATES.items()
        },
        "training records": {
            name: (lambda d, t=template, r=record: records.outcome(d, t, r), value)
            for name, (template, record, value) in records.RECORDS.items()
        },
    }
    for kind, cases in kinds.items():
        clear, slowest = 0, (0.0, "")
        for name, (run, value) in cases.items():
            with tempfile.TemporaryDirectory() as directory:
                start = time.monotonic()
                error = run(Path(directory))
                slowest = max(slowest, (time.monotonic() - start, name))
                if checkpoints.is_clear(error, Path(directory), value):
                    clear += 1
                else:
                    print(f"not clear: {kind}: {name}: {error!r:.300}")
        print(
            f"{kind}: {len(cases)} bad inputs, {clear} give one line with place and value;"
            f" the slowest took {slowest[0]:.1f} s ({slowest[1]})"
        )


if __name__ == "__main__":
    main()
