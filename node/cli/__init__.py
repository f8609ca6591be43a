"""The commands of ``glionode``: parsing and printing, nothing else."""
