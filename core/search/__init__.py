"""Nearest neighbours over stored embeddings (pgvector)."""
