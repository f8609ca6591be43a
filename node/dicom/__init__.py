"""What the standard says of UIDs, identity modules, storage commitment and Part 10 files."""
