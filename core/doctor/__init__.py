"""`fewlabels doctor`: what is not as it must be, and what to do about it."""
