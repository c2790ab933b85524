"""The report of a test: tables, figures and one HTML page that opens from disk."""
