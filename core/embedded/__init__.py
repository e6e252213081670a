"""The servers from wheels, for machines that have none."""
