"""Everything Glimpse knows about Elasticsearch: settings, the index, kNN requests and the local node."""
