"""The storage SCP: receives instances into the spool, says when a study is due, and deletes studies."""
