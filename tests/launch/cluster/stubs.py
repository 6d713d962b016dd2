"""Stand-ins for gcloud and Slurm, and the call of a script of the job kit with them."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

ROOT = Path(__file__).parents[3]
KIT = ROOT / "launch" / "cluster"

# Writes down its arguments. `describe` prints the next line of the file `states`, and stays at the
# last one; `ssh` leaves with the next code of the file `codes`.
GCLOUD = """#!{python}
import pathlib, sys
folder = pathlib.Path(__file__).parent
with open(folder / "calls", "a") as file:
    file.write(repr(sys.argv[1:]) + "\\n")
def following(name, keep):
    lines = (folder / name).read_text().split()
    if len(lines) > 1 or not keep:
        (folder / name).write_text("\\n".join(lines[1:]))
    return lines[0]
if "describe" in sys.argv:
    print(following("states", keep=True))
if "ssh" in sys.argv and any("docker run" in word for word in sys.argv):
    sys.exit(int(following("codes", keep=False)))
"""

# As Slurm does, starts the processes of a job step with its variables, waits for all of them and
# leaves with the highest code. In the first run of the job, `signal_in` sends SIGTERM to all once
# the given file has content, as `sbatch --signal` does before the time is over.
SRUN = """#!{python}
import os, pathlib, signal, subprocess, sys, time
folder = pathlib.Path(__file__).parent
words = sys.argv[1:]
with open(folder / "calls", "a") as file:
    file.write(repr(words) + "\\n")
while words[0].startswith("--"):
    words.pop(0)
count = int(os.environ["SLURM_NTASKS"])
tasks = [
    subprocess.Popen(words, env=os.environ | {{
        "SLURM_PROCID": str(rank), "SLURM_LOCALID": str(rank), "SLURM_STEP_NODELIST": "127.0.0.1",
        "SLURM_STEP_NUM_NODES": "1",
    }})
    for rank in range(count)
]
watched = folder / "signal_in"
if watched.exists():
    path = pathlib.Path(watched.read_text())
    watched.unlink()
    while not (path.exists() and path.stat().st_size) and tasks[0].poll() is None:
        time.sleep(0.05)
    for task in tasks:
        task.send_signal(signal.SIGTERM)
codes = [task.wait() for task in tasks]
sys.exit(max(code if code >= 0 else 128 - code for code in codes))
"""

# Runs the batch script, again for as long as `scontrol requeue` asks for it.
SBATCH = """#!{python}
import os, pathlib, subprocess, sys
folder = pathlib.Path(__file__).parent
words = sys.argv[1:]
(folder / "submitted").write_text(repr(words))
options = dict(word[2:].partition("=")[::2] for word in words if word.startswith("--"))
script = next(i for i, word in enumerate(words) if not word.startswith("--"))
tasks = int(options["nodes"]) * int(options["ntasks-per-node"])
env = os.environ | {{"SLURM_JOB_ID": "4242", "SLURM_NTASKS": str(tasks)}}
while True:
    code = subprocess.run(words[script:], env=env).returncode
    if not (folder / "requeued").exists():
        sys.exit(code)
    (folder / "requeued").unlink()
"""

SCONTROL = """#!{python}
import pathlib, sys
folder = pathlib.Path(__file__).parent
assert sys.argv[1:] == ["requeue", "4242"], sys.argv
(folder / "requeued").touch()
with open(folder / "requeues", "a") as file:
    file.write("again\\n")
"""


@dataclasses.dataclass(frozen=True)
class Stubs:
    """A folder of commands that stand in for those of a cluster.

    Attributes:
      folder: holds the commands, and what they write down.
    """

    folder: Path

    @classmethod
    def made(cls, folder: Path) -> "Stubs":
        """Writes the commands into a new folder."""
        folder.mkdir()
        for name, text in (
            ("gcloud", GCLOUD), ("srun", SRUN), ("sbatch", SBATCH), ("scontrol", SCONTROL),
            ("sleep", "#!{python}\n"),
        ):  # fmt: skip
            path = folder / name
            path.write_text(text.format(python=sys.executable))
            path.chmod(0o755)
        return cls(folder)

    def run(
        self, script: str, *words: object, environment: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Runs a script of the kit with the commands of this folder before all others."""
        env = dict(os.environ if environment is None else environment)
        env["PATH"] = f"{self.folder}:{Path(sys.executable).parent}:{env['PATH']}"
        return subprocess.run(
            [str(KIT / script), *map(str, words)],
            cwd=ROOT, env=env, capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    def calls(self) -> list[list[str]]:
        """Returns the arguments of all calls that were written down, and forgets them."""
        path = self.folder / "calls"
        found = [eval(line) for line in path.read_text().splitlines()] if path.exists() else []
        path.unlink(missing_ok=True)
        return found


def verbs(calls: Sequence[Sequence[str]]) -> list[str]:
    """Returns what each call of gcloud asked for, without questions for the state."""
    names = ("create", "delete", "ssh")
    return [
        next(word for word in call if word in names) for call in calls if "describe" not in call
    ]
