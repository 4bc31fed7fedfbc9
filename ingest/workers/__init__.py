"""The work of one ingest is shared out to processes of this machine, or to a cluster of Ray."""
