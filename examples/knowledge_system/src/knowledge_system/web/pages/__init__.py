"""The pages, one module per part of the site; the application registers the blueprint ``pages`` of each."""
