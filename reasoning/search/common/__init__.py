"""What search methods share: scored paths, shared samples, and their comparison."""
