"""The way out: one searcher, and its page, REST API and commands."""
