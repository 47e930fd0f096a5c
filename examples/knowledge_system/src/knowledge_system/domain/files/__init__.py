"""Uploaded files: type detection, metadata removal, file names, zip bundles."""
