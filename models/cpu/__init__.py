"""What exists only because of how XLA runs on a CPU; accelerators take the plain way.

    products.py    attention's products in layouts that the CPU backend computes fast: training
                   attention is about 1.6 times as fast as the library's
    reductions.py  sums and maxima over rows, side by side in lanes of 32 entries

Each module says what the backend does otherwise. Ratios were measured on two-core x86 machines.
"""
