"""Bradley-Terry on packed pairs against the formula in float64, and the records it reads."""

import json

import numpy as np
import pytest

from models.tokens.packing import pack, place
from models.tokens.tokenizer_training import train_bpe
from tests.train.objectives.scalar_parts import alone, sgd_update
from train.objectives.reward_model import encode_pairs, load_pairs, make_loss, mean_metrics
from train.source import PackedSource

TEMPLATE = (
    "{% for m in messages %}{{ m.role }}:{{ m.content }}"
    "{% if m.role == 'assistant' %}{{ eos_token }}{% endif %}{{ '\n' }}{% endfor %}"
    "{% if add_generation_prompt %}assistant:{% endif %}"
)
TOKENIZER = train_bpe(["a"], 258, pad_token="<pad>", template=TEMPLATE)
RECORDS = [
    {"prompt": "ab", "chosen": "cdefg", "rejected": "h"},
    {"prompt": "ij", "chosen": "k", "rejected": "lmnop", "margin": 1.5},
    {"prompt": "q", "chosen": "", "rejected": "rs"},
    {"prompt": "tu", "chosen": "vw", "rejected": "vx", "margin": 0.5},
    {"prompt": "y", "chosen": "z", "rejected": "zz"},
]


def oracle(records, weights):
    """Mean loss, its gradient at the head, share of pairs in order, and mean gap."""
    loss, gradient, right, gaps = 0.0, 0.0, 0, 0.0
    for record, weight in zip(records, weights):
        ends = []
        for name in ("chosen", "rejected"):
            ids = TOKENIZER.encode(record["prompt"]) + TOKENIZER.encode(record[name])
            hidden, values = alone([*ids, TOKENIZER.eos_id], bias=False)
            ends.append((hidden[-1], values[-1]))
        (chosen_h, chosen), (rejected_h, rejected) = ends
        gap = chosen - rejected
        p = 1 / (1 + np.exp(-(gap - record.get("margin", 0.0))))
        loss -= weight * np.log(p)
        gradient = gradient - weight * (1 - p) * (chosen_h - rejected_h)
        right += gap > 0
        gaps += gap
    count = len(records)
    return loss / sum(weights), gradient / sum(weights), right / count, gaps / count


@pytest.mark.parametrize("row_length", [12, 30])
@pytest.mark.parametrize("accumulate", [1, 2])
def test_loss_and_gradient_equal_the_formula_on_sequences_read_alone(row_length, accumulate):
    examples = encode_pairs(RECORDS, TOKENIZER)
    weights = [1.0, 2.0, 1.0, 0.5, 1.0]
    for example, weight in zip(examples, weights):
        example["loss_weights"] = example["loss_weights"] * np.float32(weight)
    placement = place([len(example["tokens"]) for example in examples], row_length)
    batch = pack(examples, placement, row_length, num_rows=6)
    assert (placement.num_rows < 5) == (row_length > 12)
    metrics, gradient = sgd_update(
        make_loss, batch, bias=False, accumulate=accumulate, finalize=mean_metrics
    )
    loss, kernel, accuracy, gap = oracle(RECORDS, weights)
    assert float(metrics["loss"]) == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(gradient["kernel"][:, 0], kernel, atol=3e-6)
    assert float(metrics["accuracy"]) == pytest.approx(accuracy)
    assert float(metrics["reward_gap"]) == pytest.approx(gap, rel=1e-4)
    assert metrics["pairs"] == 5
    assert metrics["tokens"] == sum(len(example["tokens"]) for example in examples)


def test_a_pair_is_never_parted():
    examples = encode_pairs(RECORDS * 4, TOKENIZER)
    source = PackedSource(examples, rows=4, row_length=20, seed=1, num_epochs=1)
    pairs = 0
    for _ in range(source.count_batches()):
        batch = source.next()
        for row, column in zip(*np.nonzero(batch["loss_weights"])):
            start = column - batch["positions"][row, column]
            members = batch["member_starts"][row, start : column + 1]
            assert members[0] == 0 and members[-1] > 0
            assert (batch["segment_ids"][row, start : column + 1] > 0).all()
            pairs += 1
    assert pairs == len(examples)


def ids(text):
    return TOKENIZER.encode(text)


def test_every_kind_of_record_becomes_the_same_pair():
    user = {"role": "user", "content": "ab"}
    good, bad = ({"role": "assistant", "content": text} for text in ("c", "d"))
    records = [
        {"prompt": [user], "chosen": "c", "rejected": "d"},
        {"prompt": [user], "chosen": [good], "rejected": [bad]},
        {"chosen": [user, good], "rejected": [user, bad]},
        {"prompt": "ab", "chosen": [good], "rejected": [bad]},
    ]
    # The newline that the template adds behind the end of the turn is not read.
    chosen = [*ids("user:ab\nassistant:c"), TOKENIZER.eos_id]
    rejected = [*ids("user:ab\nassistant:d"), TOKENIZER.eos_id]
    for example in encode_pairs(records, TOKENIZER):
        np.testing.assert_array_equal(example["tokens"], chosen + rejected)
        starts = [0] * len(chosen) + [len(chosen)] * len(rejected)
        np.testing.assert_array_equal(example["member_starts"], starts)
        assert example["loss_weights"].sum() == example["loss_weights"][-1] == 1


@pytest.mark.parametrize(
    ("record", "message"),
    [
        ({"prompt": "a", "chosen": "b"}, "has the fields chosen, prompt; a preference needs"),
        ({"chosen": "b", "rejected": "c"}, "'chosen' is text, but there is no 'prompt'"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "are equal"),
        ({"prompt": 3, "chosen": "b", "rejected": "c"}, "'prompt' is a int"),
        ({"prompt": "a", "chosen": None, "rejected": "c"}, "'chosen' is a NoneType"),
        ({"prompt": "a", "chosen": "b", "rejected": "c", "margin": "x"}, "'margin' is 'x'"),
        ({"chosen": [{"role": "user", "content": "a"}], "rejected": []}, "no assistant turn"),
    ],
)
def test_bad_records_are_refused_in_one_line(record, message, tmp_path):
    path = tmp_path / "pairs.jsonl"
    path.write_text(json.dumps(RECORDS[0]) + "\n" + json.dumps(record) + "\n")
    with pytest.raises(ValueError, match=f"pairs.jsonl:2: .*{message}") as error:
        load_pairs(path, TOKENIZER)
    assert "\n" not in str(error.value)
