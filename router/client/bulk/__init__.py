"""Embedding a whole file: from its rows to a matrix on disk, so that a stop at any moment loses nothing.

job      what is asked for                   batches  one batch, and which of its rows fail
source   the file's rows, as a stream        matrix   the vectors on disk, rows in any order
journal  which batches are done              store    matrix and journal together
parquet  what needs pyarrow                  run      all of it, from begin to end
"""
