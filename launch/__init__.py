"""Entry points, run as ``python -m launch.run_<name>``."""
