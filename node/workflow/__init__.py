"""Durable execution of workflows: the only room that knows DBOS."""
