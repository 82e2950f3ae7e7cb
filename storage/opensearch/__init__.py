"""Parts of the OpenSearch target: its requests, its documents. storage/targets/opensearch.py is the tour."""
