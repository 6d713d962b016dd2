"""Problems and answers: tasks, grading, generators, verifiers, search methods and training data.

This package imports only `models`. The modules at its root are shared by its sub-packages.
"""
