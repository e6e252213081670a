"""`fewlabels upload`: a folder of images to a dataset, as often as it takes."""
