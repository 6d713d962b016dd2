"""Jobs put together from a config: training, distillation, verifiers, search comparisons."""
