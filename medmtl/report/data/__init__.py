"""What `medmtl data check` found: page and template."""
