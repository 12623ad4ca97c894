"""Blobs on object stores: Amazon S3 and what speaks its protocol; Google Cloud Storage and Azure by URL.

Two libraries share the work, neither of which can do all of it: `obstore` moves the data (async, in bounded memory, parts in
parallel, broken downloads resumed where they broke), `boto3` finds credentials as every AWS tool does and lists and deletes
versions (in worker threads, so the loop stays free).

Who repeats what: a call that can be made again as a whole is repeated by `stamina`; a stream only its own library can take up
again, part by part, so there obstore repeats, with the same numbers. Never both.
"""

from dipeo_nb.storage.cloud.adapter import S3Adapter
from dipeo_nb.storage.cloud.clients import ATTEMPTS
from dipeo_nb.storage.cloud.urls import SCHEMES, blob_store

__all__ = ["ATTEMPTS", "SCHEMES", "S3Adapter", "blob_store"]
