"""Checkpoints and trained models on disk: sealed, bounded, and never executed as code."""
