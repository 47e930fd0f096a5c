"""Purging what a content delivery network keeps."""
