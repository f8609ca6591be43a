"""Decides what may be deleted, and when."""
