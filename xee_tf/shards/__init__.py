"""Write and read shards: TFRecord files with an index, in local folders and object stores."""

from xee_tf.shards.access import read_records
from xee_tf.shards.appending_store import AppendingStore
from xee_tf.shards.file_store import FileStore, place_runs, run_sizes
from xee_tf.shards.inflate import GZIP
from xee_tf.shards.limits import check_inflated
from xee_tf.shards.matching import differing_run, match_shard, match_shards
from xee_tf.shards.members import (
    HEAD_BYTES,
    IMAGE_MEMBER,
    PREDICTION_MEMBER,
    TABLE_MEMBER,
    index_header_size,
    member_edges,
    patches_per_member,
    read_index,
)
from xee_tf.shards.opening import first_record, number_shards, open_shards
from xee_tf.shards.runs import Part, Run, WrittenShard, pack_run, shard_header
from xee_tf.shards.scan import inflated, read_pieces, scan_file, whole_frames
from xee_tf.shards.sequential_store import SequentialStore
from xee_tf.shards.shard import Shard, file_stamp, shard_spans
from xee_tf.shards.store import OneFile, ShardStore, aborted_on_failure, commit_once
from xee_tf.shards.upload_store import Carry, Pushed, Segment, UploadStore
from xee_tf.shards.whole import check_file, checked_rows

__all__ = [
    "GZIP",
    "HEAD_BYTES",
    "IMAGE_MEMBER",
    "PREDICTION_MEMBER",
    "TABLE_MEMBER",
    "AppendingStore",
    "Carry",
    "FileStore",
    "OneFile",
    "Part",
    "Pushed",
    "Run",
    "Segment",
    "SequentialStore",
    "Shard",
    "ShardStore",
    "UploadStore",
    "WrittenShard",
    "aborted_on_failure",
    "check_file",
    "check_inflated",
    "checked_rows",
    "commit_once",
    "differing_run",
    "file_stamp",
    "first_record",
    "index_header_size",
    "inflated",
    "match_shard",
    "match_shards",
    "member_edges",
    "number_shards",
    "open_shards",
    "pack_run",
    "patches_per_member",
    "place_runs",
    "read_index",
    "read_pieces",
    "read_records",
    "run_sizes",
    "scan_file",
    "shard_header",
    "shard_spans",
    "whole_frames",
]
