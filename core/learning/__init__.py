"""Plain PyTorch library: arrays, paths, dataclasses and callbacks in, modules and numbers out."""
