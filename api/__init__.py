"""HTTP: parse, authorise, call core, serialise."""
