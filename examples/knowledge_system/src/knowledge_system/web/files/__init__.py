"""File uploads and downloads over HTTP."""
