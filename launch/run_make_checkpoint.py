r"""Makes a small random checkpoint in Qwen2's layout, and SFT data for it: RL without a download.

    python -m launch.run_make_checkpoint --output=runs/tiny_qwen2
    python -m launch.run_sft --config=configs/sft.py:tiny --config.task=gsm8k \
        --config.model=runs/tiny_qwen2/model --config.data=runs/tiny_qwen2/sft.jsonl \
        --workdir=runs/tiny_qwen2/sft
    python -m launch.run_rl --config=configs/gsm8k_grpo.py:tiny \
        --config.model=runs/tiny_qwen2/sft/sft/hf --workdir=runs/tiny_qwen2/rl

The program writes `model/` (random weights, and a BPE tokenizer trained on the task's texts) and
`sft.jsonl` (the task's solutions as chats). Most of these chats break the R1 format in one of
several ways. After SFT on them the model therefore knows the format but seldom keeps it, and RL has
something to improve. Such a model is far too small to solve GSM8K.
"""

import json
import random
import re
from collections.abc import Sequence
from pathlib import Path

from absl import flags

from launch.parts import runtime

HEADS = 4
# The turns of Qwen's chat models (ChatML).
TURN_OPEN, TURN_CLOSE = "<|im_start|>", "<|im_end|>"
TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message.role }}\n"
    "{{ message.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
WELL_FORMED = "<think> {chain} </think> <answer> {answer} </answer>"
BROKEN = (
    "{chain} The answer is {answer}.",
    "<think> {chain} <answer> {answer} </answer>",
    "<think> {chain} </think> {answer}",
    "{chain} <answer> {answer} </answer>",
    "<think> {chain} </think> <answer> {answer} </answer> That is all.",
)


def make_chats(problems: Sequence, well_formed: float, seed: int) -> list[dict]:
    """Returns a chat for each problem, in the form that `train.data` reads.

    Args:
      problems: the solution in a problem's metadata becomes the chain of thought; a problem
        without a solution repeats its question.
      well_formed: share of responses that keep the R1 format.
      seed: decides which responses keep the format.
    """
    from reasoning.prompts import R1_SYSTEM

    rng, chats = random.Random(seed), []
    for problem in problems:
        # GSM8K's solutions hold calculator calls, <<3*4=12>>, and end in #### and the answer.
        chain = re.sub(r"<<.*?>>", "", problem.metadata.get("solution", problem.question))
        chain = " ".join(chain.partition("####")[0].split())
        form = WELL_FORMED if rng.random() < well_formed else rng.choice(BROKEN)
        contents = {
            "system": R1_SYSTEM,
            "user": problem.question,
            "assistant": form.format(chain=chain, answer=problem.answer),
        }
        chats.append({"messages": [{"role": r, "content": c} for r, c in contents.items()]})
    return chats


def make_checkpoint(
    output: Path,
    problems: Sequence,
    *,
    well_formed: float,
    vocab_size: int,
    width: int,
    layers: int,
    seed: int,
) -> None:
    """Writes `model/` and `sft.jsonl` into `output`, which must not exist."""
    import jax

    from models.files import write_atomically
    from models.hf.export import export_model
    from models.tokens.tokenizer_training import train_bpe
    from reasoning import response

    if output.exists():
        raise ValueError(f"{output} exists; remove it, or give another --output")
    chats = make_chats(problems, well_formed, seed)
    tags = (response.THINK_OPEN, response.THINK_CLOSE, response.ANSWER_OPEN, response.ANSWER_CLOSE)
    texts = (message["content"] for chat in chats for message in chat["messages"])
    tokenizer = train_bpe(
        # Tags become tokens of their own; in the text they would only spoil the merges.
        (re.sub("|".join(tags), "", text) for text in texts),
        vocab_size,
        special_tokens=(TURN_OPEN,),
        text_tokens=tags,
        eos_token=TURN_CLOSE,
        pad_token="<|endoftext|>",
        template=TEMPLATE,
    )
    model = runtime.build_model(
        {
            "family": "qwen2",
            "vocab_size": vocab_size,
            "embed_dim": width,
            "num_layers": layers,
            "num_heads": HEADS,
            "num_kv_heads": 2,
            "head_dim": width // HEADS,
            "mlp_dim": 3 * width,
            "qkv_bias": True,
            "tie_embeddings": True,
            "max_length": 1024,
        }
    )
    params = jax.jit(model.init)(jax.random.key(seed))
    export_model(output / "model", model.config, params, tokenizer)
    lines = [json.dumps(chat, ensure_ascii=False) + "\n" for chat in chats]
    write_atomically(output / "sft.jsonl", "".join(lines))
    print(f"{output}: {model.config.num_params:,} parameters, {len(chats)} chats")


def main(argv: list[str]) -> None:
    """Runs the job as the flags say."""
    del argv
    from reasoning.tasks import get_task

    make_checkpoint(
        Path(_OUTPUT.value),
        get_task(_TASK.value).problems("train", _EXAMPLES.value, _SEED.value),
        well_formed=_WELL_FORMED.value,
        vocab_size=_VOCAB.value,
        width=_WIDTH.value,
        layers=_LAYERS.value,
        seed=_SEED.value,
    )


if __name__ == "__main__":
    # Flags are global: defined here, they do not clash where a program imports several entry
    # points.
    _OUTPUT = flags.DEFINE_string("output", None, "Folder to write.", required=True)
    _TASK = flags.DEFINE_string("task", "gsm8k", "Task whose texts are used.")
    _EXAMPLES = flags.DEFINE_integer("examples", 4000, "Training problems to use.", lower_bound=1)
    _WELL_FORMED = flags.DEFINE_float("well_formed", 0.3, "Share of chats in the R1 format.", 0, 1)
    _VOCAB = flags.DEFINE_integer("vocab_size", 1024, "Largest vocabulary, in tokens.")
    _WIDTH = flags.DEFINE_integer("width", 96, "Width of the residual stream.", lower_bound=8)
    _LAYERS = flags.DEFINE_integer("layers", 2, "Layers of the decoder.", lower_bound=1)
    _SEED = flags.DEFINE_integer("seed", 0, "Seed of weights and data.")
    runtime.run_main(main)
