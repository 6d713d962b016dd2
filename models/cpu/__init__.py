"""What exists only because of how XLA runs on a CPU; accelerators take the plain way."""
