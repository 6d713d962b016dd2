"""Trains with every objective by one state, one step and one loop.

    objectives/     losses `loss_fn(params, batch) -> (loss, metrics)`, one file each: SFT,
                    distillation, process reward, reward model; and stored tokens of a teacher
    step.py         makes a train step from an objective and an optimizer
    optimizer.py    optimizers, schedules and per-parameter rules from a config
    state.py        parameters and optimizer state, created sharded
    source.py       the interface that the loop draws batches from; packed rows of a data set
    data.py         turns JSONL records into token sequences with loss weights
    loop.py         the loop: resume, step, log, checkpoint, stop
    checkpoint.py   atomic checkpoints with checksums, the latest and the best
    run_log.py      brings metrics from the device to guards, files and the display
    metrics.py      metric and sample files of a run
    progress.py     shows a bar on a terminal, plain lines elsewhere
    preemption.py   ends a run cleanly on signals and preemption

Batches are dicts of `[rows, length]` arrays: tokens, positions, segment_ids (0 is padding, 1 and up
are the packed sequences of a row, see `models.tokens.packing`) and loss_weights, all aligned to the
predicted token. A loss is `sum(loss_weights * token_loss)`, so packing, gradient accumulation and
sharding are sums. A second term of a loss has weights of its own, such as language_weights.
"""
