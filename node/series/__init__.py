"""Series selection: which series of a study is T1, T1c, T2 or FLAIR, and the evidence for each verdict."""
