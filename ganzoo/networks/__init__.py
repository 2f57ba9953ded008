"""Generators and discriminators, built from plain scalars; every one takes (z, y=None) or (x, y=None)."""
