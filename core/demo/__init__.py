"""The demo: all three stages over the public HTTP API, on real images, measured."""
