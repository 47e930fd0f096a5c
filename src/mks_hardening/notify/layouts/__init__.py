"""Layouts of alerts: texts in two languages, and one layout per kind of destination."""
