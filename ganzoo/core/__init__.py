"""The base class of all variants, and its components."""
