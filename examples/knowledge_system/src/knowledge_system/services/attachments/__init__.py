"""Attachments of articles: taken in, kept as files, given out to those who may see the article, and removed."""
