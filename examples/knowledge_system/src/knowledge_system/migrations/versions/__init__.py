"""The revisions, in a chain without branches; each is named by its number."""
