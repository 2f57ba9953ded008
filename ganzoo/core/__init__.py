"""The base class of all variants, and the modules that it is built from."""
