"""Files and blobs on the local disk, below one base directory."""

from dipeo_nb.storage.local.blobs import DRAFT_LIFE_S, LocalBlobAdapter
from dipeo_nb.storage.local.errors import already_a_file, not_empty, too_large
from dipeo_nb.storage.local.files import MAX_FILE_SIZE, LocalFileSystemAdapter
from dipeo_nb.storage.local.text import decoded, encoded, mime_type

__all__ = [
    "DRAFT_LIFE_S",
    "MAX_FILE_SIZE",
    "LocalBlobAdapter",
    "LocalFileSystemAdapter",
    "already_a_file",
    "decoded",
    "encoded",
    "mime_type",
    "not_empty",
    "too_large",
]
