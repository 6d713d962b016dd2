"""Damages checkpoints and exports in every way that a disk or a person may, and counts what passes.

    python -m tests.train.damage_checkpoints --flips=60

A tiny run is trained half way, with three checkpoints on disk. The newest one is damaged; then the
same run is started again. It must name the damage, go on from an older checkpoint, and end with the
weights of an undisturbed run, bit for bit. Loading must refuse an export (`hf/`) with any damage.
Prints a table; exits 1 where other weights passed.

A case is `harmless` where nothing was named and the weights are right: Orbax writes two files after
the checksums, of which nothing that is restored depends.
"""

import argparse
import collections
import os
import random
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax  # noqa: E402
import numpy as np  # noqa: E402

from models.config import ModelConfig  # noqa: E402
from models.decoder import LanguageModel  # noqa: E402
from models.hf.export import export_model  # noqa: E402
from models.hf.load import load_params  # noqa: E402
from models.manifest import Damaged  # noqa: E402
from tests.train.bigram import parts  # noqa: E402
from train.checkpoint import Checkpointer  # noqa: E402
from train.loop import run  # noqa: E402
from train.metrics import MetricWriter  # noqa: E402

HALF, STEPS = 6, 9
NEWEST = str(HALF)
Damage = Callable[[Path], None]


def train(workdir: Path, steps: int, say: Callable[[str], None] = print) -> list[np.ndarray]:
    """Trains to `steps` of `STEPS`, from where the directory is; returns all of the state."""
    state, step, source = parts(num_steps=STEPS)
    with Checkpointer(workdir / "checkpoints", keep=3, say=say) as checkpointer:
        result = run(
            state, step, source, num_steps=steps, checkpointer=checkpointer, checkpoint_every=2,
            writer=MetricWriter(workdir),
        )  # fmt: skip
    return [np.asarray(x) for x in jax.tree.leaves(result.state)]


def flip(rng: random.Random) -> Damage:
    """Another value of one bit, in a file that is drawn by its size."""

    def damage(directory: Path) -> None:
        files = [path for path in sorted(directory.rglob("*")) if path.is_file()]
        (path,) = rng.choices(files, [p.stat().st_size for p in files])
        content = bytearray(path.read_bytes())
        content[rng.randrange(len(content))] ^= 1 << rng.randrange(8)
        path.write_bytes(content)

    return damage


def of_files(directory: Path) -> Iterator[tuple[str, Damage]]:
    """Every file cut in half, emptied, deleted, or replaced by something else."""
    for path in sorted(directory.rglob("*")):
        if not path.is_file():
            continue
        name = path.relative_to(directory)
        size = path.stat().st_size
        yield "file cut in half", lambda d, n=name, s=size: os.truncate(d / n, s // 2)
        yield "file emptied", lambda d, n=name: os.truncate(d / n, 0)
        yield "file deleted", lambda d, n=name: (d / n).unlink()
        yield "file of garbage", lambda d, n=name: (d / n).write_bytes(b"\xff{garbage\0")


def of_folders(directory: Path) -> Iterator[tuple[str, Damage]]:
    """Every folder deleted, and the checkpoint emptied."""
    for path in sorted(directory.iterdir()):
        if path.is_dir():
            yield "folder deleted", lambda d, n=path.name: shutil.rmtree(d / n)
    yield (
        "checkpoint emptied",
        lambda d: [shutil.rmtree(p) if p.is_dir() else p.unlink() for p in d.iterdir()],
    )


def damage_checkpoints(
    folder: Path, flips: int, seed: int, files_of_each: int | None = None
) -> collections.Counter:
    """(kind of damage, what became of it) -> how often.

    Args:
      files_of_each: how many files suffer each kind of damage; None is all.
    """
    rng = random.Random(seed)
    expected, half = train(folder / "whole", STEPS), folder / "half"
    train(half, HALF)
    newest = half / "checkpoints" / NEWEST
    cases = [("bit flipped", flip(rng)) for _ in range(flips)]
    by_kind: dict[str, list] = {}
    for case in of_files(newest):
        by_kind.setdefault(case[0], []).append(case)
    for of_kind in by_kind.values():
        count = len(of_kind) if files_of_each is None else files_of_each
        cases += rng.sample(of_kind, count)
    cases += of_folders(newest)
    counts: collections.Counter = collections.Counter()
    for i, (kind, damage) in enumerate(cases):
        workdir, said = folder / f"case_{i}", []
        shutil.copytree(half, workdir)
        damage(workdir / "checkpoints" / NEWEST)
        state = train(workdir, STEPS, said.append)
        same = all(a.tobytes() == b.tobytes() for a, b in zip(expected, state, strict=True))
        named = any(f"checkpoint {NEWEST} is not used" in line for line in said)
        end = {(True, True): "named, older one used", (False, True): "harmless"}
        counts[kind, end.get((named, same), "OTHER WEIGHTS")] += 1
        shutil.rmtree(workdir)
    return counts


def damage_exports(folder: Path, flips: int, seed: int) -> collections.Counter:
    """The same of an export, which is refused."""
    rng = random.Random(seed)
    config = ModelConfig(
        family="llama", vocab_size=64, embed_dim=32, num_layers=1, num_heads=2, num_kv_heads=1,
        head_dim=16, mlp_dim=64,
    )  # fmt: skip
    whole = folder / "hf"
    export_model(whole, config, LanguageModel(config).init(jax.random.key(0)))
    cases = [("export: bit flipped", flip(rng)) for _ in range(flips)]
    cases += [(f"export: {kind}", damage) for kind, damage in of_files(whole)]
    counts: collections.Counter = collections.Counter()
    for i, (kind, damage) in enumerate(cases):
        directory = folder / f"export_{i}"
        shutil.copytree(whole, directory)
        damage(directory)
        unmarked = not (directory / "MANIFEST.sha256").exists()
        try:
            load_params(directory, config)
            end = "harmless" if unmarked else "OTHER WEIGHTS"
        except Damaged as error:
            end = "named, refused" if str(directory) in str(error) else "NOT NAMED"
        counts[kind, end] += 1
        shutil.rmtree(directory)
    return counts


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--flips", type=int, default=60)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="damage_checkpoints.") as folder:
        counts = damage_checkpoints(Path(folder), options.flips, options.seed)
        counts += damage_exports(Path(folder), options.flips, options.seed)
    print("\n| damage | cases | what became of them |\n|---|---|---|")
    for (kind, end), count in counts.items():
        print(f"| {kind} | {count} | {end} |")
    return 1 if any(end.isupper() for _, end in counts) else 0


if __name__ == "__main__":
    sys.exit(main())
