"""The engine that data stages run on, and the tables of rows that it works with. See docs/engine.md."""

from tunesmith.data.engine.canonical import SCHEMA, RowsWriter, StoredRows, labels_of, rows_of, write_rows
from tunesmith.data.engine.engine import Engine
from tunesmith.data.engine.stages import Staged, run_stages
from tunesmith.data.engine.table import Table, write_table

__all__ = [
    "SCHEMA",
    "Engine",
    "RowsWriter",
    "Staged",
    "StoredRows",
    "Table",
    "labels_of",
    "rows_of",
    "run_stages",
    "write_rows",
    "write_table",
]
