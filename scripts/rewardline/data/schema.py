"""The column of pairs that says where their answers stand in their row."""

import pyarrow as pa

PLACE = pa.struct([("item", pa.string()), ("chosen", pa.int32()), ("rejected", pa.int32()), ("answers", pa.int32())])
"""The fields of `formats_text.Place`; null but for benchmarks that are counted by row."""
