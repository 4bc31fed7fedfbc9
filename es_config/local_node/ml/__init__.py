"""`_ml/trained_models` on the local node, which Elastic's published jars leave out."""
