"""The cost of training and scores, compared with other implementations: `python -m tests.benchmarks`."""
