"""Turns a stable study into its results, and says which state it is in."""
