"""Rules of the standard for UIDs, patient and study modules, storage commitment and Part 10 files."""
