"""Blobs in object stores: Amazon S3 and compatible servers; Google Cloud Storage and Azure by URL.

Two libraries share the work, since neither covers all of it: `obstore` transfers data (async, in bounded memory, parts in
parallel, broken downloads resumed), `boto3` finds credentials like every AWS tool, and lists and deletes versions (in worker
threads, so that the event loop is not blocked).

Retries: calls that can be repeated as a whole are retried by `stamina`; a stream can only be resumed part by part by its own
library, so there obstore retries, with the same limits. Never both.
"""

from dipeo_nb.storage.cloud.adapter import S3Adapter
from dipeo_nb.storage.cloud.clients import ATTEMPTS
from dipeo_nb.storage.cloud.urls import SCHEMES, blob_store

__all__ = ["ATTEMPTS", "SCHEMES", "S3Adapter", "blob_store"]
