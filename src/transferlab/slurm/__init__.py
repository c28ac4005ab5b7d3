"""Runs as jobs of a SLURM cluster: submitted in arrays, stopped in order, followed to their end."""
