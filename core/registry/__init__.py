"""Models, their artefacts and aliases."""
