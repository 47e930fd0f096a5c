"""Integrations: one module per framework or tool, imported only if it is used."""
