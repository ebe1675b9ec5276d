"""What one core does, out of the tables of ``docs/benchmarks.md``: the base of ``docs/concepts/scaling.md``.

No figure is typed here: each is read from a table that a benchmark printed, so that the study follows the measurements.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from benchmarks.report import PAGE

NUMBER = re.compile(r"[-+]?\d[\d,]*(?:\.\d+)?")


@dataclass(frozen=True)
class Table:
    """A published table: the line above it, and its rows by the names of their columns."""

    above: str
    rows: tuple[dict[str, str], ...]

    def row(self, column: str, begins: str) -> dict[str, str]:
        """The row whose cell of a column begins so."""
        return next(row for row in self.rows if row[column].startswith(begins))


def published(name: str, page: str | None = None) -> Table:
    """Read a table of the page.

    Raises
    ------
    SystemExit
        If its benchmark has not been run.
    """
    text = PAGE.read_text() if page is None else page
    found = re.search(f"<!-- {name}: begin -->(.*?)<!-- {name}: end -->", text, re.DOTALL)
    lines = found.group(1).strip().splitlines() if found else []
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")]
    if len(cells) < 3:
        raise SystemExit(f"{PAGE.name} has no table {name} yet: make bench-{name} prints it.")
    above = " ".join(line for line in lines if not line.startswith("|"))
    return Table(above, tuple(dict(zip(cells[0], row, strict=True)) for row in cells[2:]))


def number(text: str) -> float:
    """The first number of a cell.

    >>> number("3,713 (1.000 of those)"), number("0.83 of 188 GFLOP/s")
    (3713.0, 0.83)
    """
    found = NUMBER.search(text)
    if found is None:
        raise SystemExit(f"no number in {text!r}")
    return float(found.group().replace(",", ""))


@dataclass(frozen=True)
class Rates:
    """What work costs on one core of this machine, in seconds, and what it leaves on disk, in bytes.

    Attributes
    ----------
    ingest, tissue
        Per pixel of the slide.
    texture
        Features, per superpixel of tissue.
    predict, predict_gene
        Per superpixel of tissue, and on top of it per gene.
    fit, plot
        Of a slide, whatever its size.
    context
        ViT-4K's share of ViT-256's time.
    matmul
        Shares of the matrix product's rate that HIPT reaches in float32 and in bfloat16.
    patches
        Patches per second and core in float32 and in bfloat16.
    tasks
        Regions per second that the driving process can hand out.
    image_bytes, texture_bytes, gene_bytes
        Per superpixel of tissue, compressed; the last of one gene, with its uncertainty.
    """

    ingest: float
    tissue: float
    texture: float
    predict: float
    predict_gene: float
    fit: float
    plot: float
    context: float
    matmul: tuple[float, float]
    patches: tuple[float, float]
    tasks: float
    image_bytes: float
    texture_bytes: float
    gene_bytes: float


def measured() -> Rates:
    """Read all rates from the page."""
    scale, workers, features = published("scale"), published("workers"), published("features")
    large = scale.rows[-1]
    cores, genes = (float(found) for found in re.findall(r"--workers (\d+)`, (\d+) genes", scale.above)[0])
    pixels, tissue = number(large["slide, px"]) ** 2, number(large["tissue superpixels"])

    def core_seconds(stage: str) -> float:
        return cores * number(large[f"{stage}, s"])

    predict, predict_gene = _predict(core_seconds("predict") / tissue, genes, workers)
    hipt = [features.row("scheme", f"iscale, {precision}") for precision in ("float32", "bfloat16")]
    cores_then = int(re.findall(r"(\d+) cores", features.above)[0])
    context = float(re.findall(r"took (\d+) s in float32", features.above)[0]) / number(hipt[0]["s"])
    return Rates(
        ingest=core_seconds("ingest") / pixels,
        tissue=core_seconds("tissue") / pixels,
        texture=core_seconds("features") / tissue,
        predict=predict,
        predict_gene=predict_gene,
        fit=number(large["fit, s"]),
        plot=number(large["plot, s"]),
        context=context,
        matmul=(number(hipt[0]["of the matmul rate"]), number(hipt[1]["of the matmul rate"])),
        patches=(number(hipt[0]["patches/s"]) / cores_then, number(hipt[1]["patches/s"]) / cores_then),
        tasks=number(published("scheduler").row("step", "all")["tasks/s"]),
        image_bytes=1e9 * number(large["image on disk, GB"]) / tissue,
        texture_bytes=1e9 * number(large["features on disk, GB"]) / tissue,
        gene_bytes=1e9 * number(large["expression on disk, GB"]) / tissue / genes,
    )


def _predict(few: float, genes: float, workers: Table) -> tuple[float, float]:
    """Seconds per superpixel, and per gene on top, from runs with few and with many genes."""
    superpixels, more = re.findall(r"([\d,]+) superpixels of tissue, (\d+) genes", workers.above)[0]
    many = number(workers.row("stage", "predict")["serial, s"]) / float(superpixels.replace(",", ""))
    slope = max(0.0, (many - few) / (float(more) - genes))
    return max(0.0, few - slope * genes), slope
