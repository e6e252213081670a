"""Bytes from outside become verified images."""
