"""Queries, the searcher and its response; measuring and reindexing stand on it too."""
