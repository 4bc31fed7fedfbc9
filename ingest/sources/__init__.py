"""Pictures that lie in buckets, archives and lists of addresses."""
