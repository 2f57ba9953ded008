"""What training and scores cost, beside other people's ways: `python -m tests.benchmarks`."""
