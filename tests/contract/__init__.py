"""What holds for every variant, config, command, file from a stranger, and document."""
