"""Deprecated: what was here lives in `security` and `common` now. Kept for imports of old."""
