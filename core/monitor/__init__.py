"""`fewlabels jobs`: list jobs, and follow one until it ends."""
