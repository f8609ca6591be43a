"""The structured reports: measurements (TID 1500), refusals, and their codes."""
