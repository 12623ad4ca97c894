"""Files. Blobs, artifacts and repositories join them in their own modules."""
