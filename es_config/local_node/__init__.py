"""The local node: Elasticsearch in a background process of this machine, for this user alone."""
