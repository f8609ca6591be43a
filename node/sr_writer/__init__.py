"""Numbers and words for people: the TID 1500 report and its codes."""
