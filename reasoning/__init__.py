"""Problems, answers, verifiers, tasks and inference-time scaling methods."""
