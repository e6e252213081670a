"""What comes past the API: archives in the object store, files in a bucket, orders to import."""
