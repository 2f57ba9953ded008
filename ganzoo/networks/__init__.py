"""Generators and discriminators. Constructors take plain scalars; forward takes (z, y=None) or (x, y=None)."""
