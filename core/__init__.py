"""All that Fewlabels knows, without HTTP and without Celery tasks."""
