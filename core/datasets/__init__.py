"""Datasets, their labels, frozen snapshots and decoded caches."""
