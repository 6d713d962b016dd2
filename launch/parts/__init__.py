"""The parts of every entry point: set-up, stages of a job, reports."""
