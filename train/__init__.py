"""Training: one state, one step, one loop for every objective.

    objectives/     one file each: `loss_fn(params, batch) -> (loss, metrics)`; SFT, distillation,
                    process reward, reward model; and a teacher's likely tokens, stored
    step.py         makes a train step of an objective and an optimizer
    optimizer.py    optimizers, schedules and per-parameter rules from a config
    state.py        parameters and optimizer state, created sharded
    source.py       what the loop draws batches from; packed rows of a data set
    data.py         JSONL records to token sequences with loss weights
    loop.py         the loop: resume, step, log, checkpoint, stop
    checkpoint.py   atomic checkpoints with checksums, latest and best
    run_log.py      metrics on their way from the device to guards, files and the display
    metrics.py      metric and sample files of a run
    progress.py     a bar on a terminal, plain lines elsewhere
    preemption.py   signals and preemption

Batches are dicts of `[rows, length]` arrays: tokens, positions, segment_ids (0 is padding, 1.. the
packed sequences of a row, see `models.tokens.packing`) and loss_weights, all aligned to the
predicted token. A loss is `sum(loss_weights * token_loss)`, so that packing, gradient accumulation and
sharding are sums; a second term of it has weights of its own, such as language_weights.
"""
