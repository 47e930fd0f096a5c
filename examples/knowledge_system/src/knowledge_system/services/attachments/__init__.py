"""Attachments of articles: validation, storage, access control, removal."""
