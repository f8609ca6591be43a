"""Durable execution of workflows: the only package that knows DBOS."""
