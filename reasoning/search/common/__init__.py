"""Code that search methods share: scored paths, banks of samples, and the comparison of methods."""
