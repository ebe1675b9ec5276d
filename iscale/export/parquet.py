"""Parquet: a long table of x, y, gene and value, for pandas, polars, DuckDB and R."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from iscale.arrays import block_share
from iscale.export.request import Request, tiles
from iscale.export.rows import read_sums
from iscale.geometry import Region
from iscale.words import plural

TILE = 512
"""Side of what is read together, in bins."""

GENES_AT_ONCE = 32
"""Genes that are: in float32 34 MB."""


def write(request: Request) -> str:
    """Write a row per bin with tissue and gene; a row group is one gene in one part of the slide.

    So a query for a gene, or for a place, reads only what it needs: both are in the row groups' statistics.
    """
    side = min(TILE * request.side, 4096)
    work = tiles(request.region, side)
    schema = _schema(request)
    mask = request.run.store.array("tissue/mask")
    rows = 0
    blocks = list(request.blocks(GENES_AT_ONCE))
    with (
        pq.ParquetWriter(request.part, schema, compression="zstd", use_dictionary=["gene"]) as writer,
        request.counted(len(work) * len(blocks)) as done,
    ):
        for tile in work:
            there = _there(mask, tile, request.side)
            x, y = _centres(there, tile, request)
            for start, names in blocks:
                if len(x):
                    sums = read_sums(request, names, tile)
                    for i, values in enumerate(sums):
                        writer.write_table(_table(schema, x, y, start + i, request.genes, values[there]))
                        rows += len(x)
                done()
    genes = plural(len(request.genes), "gene")
    return f"{plural(rows, 'row')}: bins of {request.bin_um:g} um with tissue, one for each of {genes}."


def _schema(request: Request) -> pa.Schema:
    from iscale import __version__

    about = {"iscale": __version__, "bin_um": f"{request.bin_um:g}", "x, y": "centres of bins, um from the corner"}
    return pa.schema(
        [
            ("x", pa.float32()),
            ("y", pa.float32()),
            ("gene", pa.dictionary(pa.int32(), pa.string())),
            ("value", pa.float32()),
        ],
        metadata={**about, "value": "expected counts, summed over the tissue of a bin"},
    )


def _there(mask: Any, tile: Region, side: int) -> NDArray[np.bool_]:
    """(y, x): bins of a tile that have tissue."""
    return np.asarray(block_share(np.asarray(mask[tile.slices]), side) > 0)


def _centres(
    there: NDArray[np.bool_], tile: Region, request: Request
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Places x and y of the bins with tissue, in um."""
    i, j = np.nonzero(there)
    step, corner = request.bin_um, tile.coarsened(request.side)
    return ((j + corner.x0 + 0.5) * step).astype(np.float32), ((i + corner.y0 + 0.5) * step).astype(np.float32)


def _table(
    schema: pa.Schema,
    x: NDArray[np.float32],
    y: NDArray[np.float32],
    gene: int,
    genes: tuple[str, ...],
    values: NDArray[np.float32],
) -> pa.Table:
    names = pa.DictionaryArray.from_arrays(np.full(len(x), gene, np.int32), pa.array(genes))
    return pa.table([pa.array(x), pa.array(y), names, pa.array(values)], schema=schema)
