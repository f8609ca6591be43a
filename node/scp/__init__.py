"""The receiver: storage SCP, durable spool, assembly of studies."""
