"""Checkpoints and trained models on disk: with checksums and size limits, read without executing code."""
