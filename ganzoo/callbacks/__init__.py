"""Callbacks for training: the run's folder, checkpoints, diagnostics, samples, scores, loggers and progress."""
