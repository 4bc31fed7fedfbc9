"""Earlier runs: ingested files, failed files, and files that are gone."""
