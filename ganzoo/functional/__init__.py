"""Pure functions of tensors: losses, penalties, divergences, metrics."""
