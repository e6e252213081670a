"""Serving beside the bare model, LitServe and a plain FastAPI handler."""
