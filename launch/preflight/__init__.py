"""What a job would need on a machine that is not at hand: memory, time and chip-hours, predicted."""
