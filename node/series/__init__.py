"""Which series is T1, T1c, T2, FLAIR, and why."""
