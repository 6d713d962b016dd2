"""Machines and jobs rather than models: local and remote folders; where all processes stop."""
