"""Webhooks: addresses that are told about jobs, signed, and only where calling is safe."""
