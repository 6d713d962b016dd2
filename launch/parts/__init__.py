"""What every entry point is put together from: set-up, stages of a job, reports."""
