"""Knowledge reports as files: figures in, XLSX or PDF out."""
