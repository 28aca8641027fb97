"""Shards: ordered, indexed, gzipped files of records, written to and read from every kind of store."""
