"""Receives what peers send, keeps it durably, says when a study is due, and deletes spool folders."""
