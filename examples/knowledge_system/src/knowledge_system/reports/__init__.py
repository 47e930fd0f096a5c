"""Reports as XLSX and PDF files."""
