"""Embeds a whole file into a matrix on disk. A stop at any moment loses no finished batch.

job      the options of a run                batches  one batch, and which of its rows fail
source   the file's rows, as a stream        matrix   the vectors on disk, rows in any order
journal  which batches are done              run      a whole run
parquet  everything that needs pyarrow       problems errors of a row or of the run
"""
