"""Pure functions of tensors: objectives, penalties."""
