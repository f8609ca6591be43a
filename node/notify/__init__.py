"""Notifies humans by mail or webhook."""
