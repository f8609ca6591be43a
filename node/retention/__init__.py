"""Decides which inputs and results may be deleted, and deletes them."""
