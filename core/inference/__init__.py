"""Models in memory, answering."""
