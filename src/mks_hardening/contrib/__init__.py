"""Adapters: one module for each framework or tool, imported only where that is used."""
