"""Blobs: bytes under content-addressed keys."""
