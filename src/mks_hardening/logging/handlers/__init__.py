"""Where lines go: standard streams, files that others rotate, files rotated here, and a queue before them."""
