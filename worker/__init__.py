"""Process plumbing of the job workers."""
