"""Queries, the searcher and its response. Measuring and reindexing stand on it too."""
