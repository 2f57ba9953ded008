"""Tests of every variant, config, command, untrusted file and document."""
