"""Page of `medmtl data check`, with its template."""
