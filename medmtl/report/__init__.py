"""Pages with tables and figures that open from disk: of a test, a comparison, a benchmark, data, predictions."""
