"""Checkpoints and trained models on disk: sealed, bounded, and never run as code."""
