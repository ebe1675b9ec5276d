"""The published pickles: an array of the whole slide per gene, and the embedding, for scripts that read them.

A pickle of an array is a few bytes of how to make it, then its numbers row after row. So it is written as the slide is
read, a strip of all its rows at a time, and no array of the slide is ever in memory. The functions are called by
the names that NumPy 1 gave them: NumPy 2 knows these too, and the published scripts are older than it.
"""

from __future__ import annotations

import pickle
import struct
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from iscale.engine.plan import format_bytes
from iscale.errors import InputError
from iscale.export.request import PART, Request, check_room, tiles
from iscale.geometry import Region
from iscale.plots.overview import refined
from iscale.project.layout import file_name
from iscale.store.layout import GENES_PER_CHUNK, SHARD_SUPERPIXELS
from iscale.words import plural

SHOWN = 5
REFINED = "refined"
EMBEDDING = "embeddings-gene.pickle"

STRIP_BYTES = 64 * 2**20
"""Of a strip that is held, for all genes that are read together."""

EMBEDDING_ROWS = SHARD_SUPERPIXELS // 4
"""Of a strip of all components: their chunks are as small."""


def write(request: Request) -> str:
    """Write ``<gene>.pickle``, the same in ``refined/`` where cells are known, and the embedding where it is."""
    store = request.run.store
    h, w = request.grid.superpixel_shape
    cells = store.array("tissue/cells") if store.has("tissue/cells") else None
    embedding = store.array("embedding/embedding") if store.has("embedding/embedding") else None
    each = 4 * h * w
    maps = len(request.genes) * (1 if cells is None else 2) + (0 if embedding is None else embedding.shape[0])
    check_room(request.part, maps * each)
    files = _files(request.genes)
    request.part.mkdir()
    if cells is not None:
        (request.part / REFINED).mkdir()
    at_once = max(1, STRIP_BYTES // (4 * SHARD_SUPERPIXELS * w) // GENES_PER_CHUNK) * GENES_PER_CHUNK
    blocks = list(request.blocks(at_once))
    of_embedding = 0 if embedding is None else len(_strips((h, w), EMBEDDING_ROWS))
    with request.counted(len(_strips((h, w))) * len(blocks) + of_embedding) as done:
        for _, names in blocks:
            _write_genes(request, names, files, cells, done)
        if embedding is not None:
            _write_embedding(request.part / EMBEDDING, embedding, done)
    return "\n".join(
        [
            f"{plural(len(request.genes), 'gene')}: arrays (y, x) of {h} x {w} superpixels, {format_bytes(each)} each, "
            "which a script that loads one needs as memory; NaN off tissue.",
            *_replaced(request.part.with_name(request.part.name.removesuffix(PART)), files),
            *([f"No {REFINED}/: iscale refine has not been run."] if cells is None else []),
            *([f"No {EMBEDDING}: the run has no embedding."] if embedding is None else []),
        ]
    )


def _replaced(folder: Path, files: dict[str, str]) -> list[str]:
    """What to say of the pickles of other genes in a folder that is replaced."""
    written = {Path(name).stem for name in (*files.values(), EMBEDDING)}
    gone = sorted({path.stem for path in folder.glob("*.pickle")} - written)
    if not gone:
        return []
    shown = ", ".join(gone[:SHOWN]) + (" ..." if len(gone) > SHOWN else "")
    return [
        f"The folder was replaced, and with it went {plural(len(gone), 'pickle')} of other genes ({shown}): "
        "name all that you want together."
    ]


def _files(genes: Sequence[str]) -> dict[str, str]:
    """Names of the genes' files; refused where two genes would share one."""
    found: dict[str, str] = {}
    for gene in genes:
        name = f"{file_name(gene)}.pickle"
        if name.casefold() in found or name == EMBEDDING:
            other = found.get(name.casefold(), EMBEDDING)
            raise InputError(f"{gene} and {other} would be the same file, {name}.", "Leave one out with --genes.")
        found[name.casefold()] = gene
    return {gene: f"{file_name(gene)}.pickle" for gene in genes}


def _write_genes(request: Request, names: Sequence[str], files: dict[str, str], cells: Any, done: Any) -> None:
    """Write some genes, strip after strip."""
    shape = request.grid.superpixel_shape
    with ExitStack() as stack:
        folders = [request.part] + ([request.part / REFINED] if cells is not None else [])
        opened = [[_begun(stack, folder / files[gene], shape) for gene in names] for folder in folders]
        for strip in _strips(shape):
            values = np.empty((len(names), *strip.shape), np.float32)
            for piece in tiles(strip):
                values[(slice(None), *piece.within(strip))] = request.source.read(names, piece)
            for file, one in zip(opened[0], values, strict=True):
                file.write(_bytes(one))
            if cells is not None:
                kept = np.asarray(cells[strip.slices])
                for file, one in zip(opened[1], values, strict=True):
                    file.write(_bytes(refined(one, kept)))
            done()
        for file in (file for files_of in opened for file in files_of):
            file.write(TAIL + pickle.STOP)


def _write_embedding(path: Path, array: Any, done: Any) -> None:
    """Write ``{"gene": (component, y, x)}``: strips go to their places in the file, which is as long from the start."""
    n, h, w = array.shape
    head = pickle.PROTO + b"\x04" + pickle.EMPTY_DICT + _text("gene") + array_head((n, h, w))
    with path.open("wb") as file:
        file.write(head)
        for strip in _strips((h, w), EMBEDDING_ROWS):
            values = np.asarray(array[:, strip.y0 : strip.y1], np.float32)
            for row, one in enumerate(values):
                file.seek(len(head) + 4 * ((row * h + strip.y0) * w))
                file.write(_bytes(one))
            done()
        file.seek(len(head) + 4 * n * h * w)
        file.write(TAIL + pickle.SETITEM + pickle.STOP)


def _strips(shape: tuple[int, int], rows: int = SHARD_SUPERPIXELS) -> list[Region]:
    h, w = shape
    return [Region(y, min(y + rows, h), 0, w) for y in range(0, h, rows)]


def _begun(stack: ExitStack, path: Path, shape: tuple[int, int]) -> IO[bytes]:
    file = stack.enter_context(path.open("wb"))
    file.write(pickle.PROTO + b"\x04" + array_head(shape))
    return file


def _bytes(values: NDArray[np.float32]) -> bytes:
    return np.ascontiguousarray(values, "<f4").tobytes()


def array_head(shape: tuple[int, ...]) -> bytes:
    """All of a pickled float32 array before its bytes, which `TAIL` follows.

    It says: take an empty array, and give it a version, this shape, this type, C order, and the bytes.
    """
    make = pickle.GLOBAL + b"numpy.core.multiarray\n_reconstruct\n"
    empty = pickle.GLOBAL + b"numpy\nndarray\n" + _number(0) + pickle.TUPLE1 + pickle.SHORT_BINBYTES + b"\x01b"
    sides = pickle.MARK + b"".join(map(_number, shape)) + pickle.TUPLE
    content = pickle.BINBYTES8 + struct.pack("<Q", 4 * int(np.prod(shape, dtype=np.int64)))
    begun = make + empty + pickle.TUPLE3 + pickle.REDUCE + pickle.MARK + _number(1)
    return begun + sides + _float32() + pickle.NEWFALSE + content


TAIL = pickle.TUPLE + pickle.BUILD
"""What follows the bytes of an array."""


def _float32() -> bytes:
    """``numpy.dtype("f4", False, True)``, little-endian."""
    made = pickle.GLOBAL + b"numpy\ndtype\n" + _text("f4") + pickle.NEWFALSE + pickle.NEWTRUE + pickle.TUPLE3
    state = _number(3) + _text("<") + 3 * pickle.NONE + 2 * _number(-1) + _number(0)
    return made + pickle.REDUCE + pickle.MARK + state + pickle.TUPLE + pickle.BUILD


def _number(value: int) -> bytes:
    return pickle.BININT + struct.pack("<i", value)


def _text(value: str) -> bytes:
    content = value.encode()
    return pickle.SHORT_BINUNICODE + bytes([len(content)]) + content
