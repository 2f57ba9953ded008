"""The contract between a variant and everything below it."""
