"""Code that exists only because of how XLA's CPU backend works; accelerators run the plain code.

    products.py    matrix products of attention in layouts that the CPU backend computes fast;
                   training attention is about 1.6 times as fast as JAX's own
    reductions.py  sums and maxima over rows, computed in 32 lanes side by side

Each module says what the backend would do otherwise. The ratios were measured on two-core x86
machines.
"""
