"""Builds jobs from a config: training, distillation, verifiers, search, evaluation, chat."""
