"""Tiles of the viewer's server: that they show what the run has."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray
from view_client import Client, Reply, painted
from view_run import (
    GENES,
    GRID,
    SHAPE,
    cells,
    expression,
    image,
    labels,
    tissue,
)


def _means(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Means over 2 x 2, of what is not NaN."""
    blocks = np.stack([values[i::2, j::2] for i in (0, 1) for j in (0, 1)])
    n = np.isfinite(blocks).sum(axis=0)
    return np.where(n, np.nansum(blocks, axis=0) / np.maximum(n, 1), np.nan).astype(np.float32)


def _shown(reply: Reply) -> NDArray[np.uint8]:
    pixels = reply.pixels.copy()
    pixels[pixels[..., 3] == 0] = 0
    return pixels


@pytest.mark.parametrize("gene", [0, 6])
@pytest.mark.parametrize(
    ("zoom", "x", "y"), [(0, 0, 0), (1, 0, 0), (1, 1, 0), (2, 1, 0), (3, 3, 1), (5, 8, 4), (5, 16, 8)]
)
def test_a_tile_of_a_gene_has_its_values(client: Client, gene: int, zoom: int, x: int, y: int) -> None:
    values = expression()[gene]
    lattice = _means(values) if zoom == 0 else values
    repeat = 1 if zoom < 2 else 2 ** (zoom - 1)
    whole = np.full((512, 512), np.nan, np.float32)
    whole[: lattice.shape[0], : lattice.shape[1]] = lattice
    n = 256 // repeat
    part = whole[y * n : (y + 1) * n, x * n : (x + 1) * n].repeat(repeat, 0).repeat(repeat, 1)
    reply = client.get(f"tile/gene/{zoom}/{x}/{y}", gene=GENES[gene], lo=2, hi=40)
    assert reply.headers["Content-Type"] == "image/png"
    np.testing.assert_array_equal(_shown(reply), painted(part, 2, 40))


def test_uncertainty_refined_and_a_threshold_are_drawn_as_they_are_defined(client: Client) -> None:
    values = expression()[2]
    cut = np.full((256, 256), np.nan, np.float32)
    refined = np.where(cells() | ~tissue(), values, 0)
    for layer, given, query in (
        ("uncertainty", values / 8, {}),
        ("refined", refined, {}),
        ("gene", np.where(values >= 15, values, np.nan), {"least": 15}),
    ):
        cut[: SHAPE[0]] = given[:, :256]
        reply = client.get(f"tile/{layer}/1/0/0", gene="CD3E", lo=0, hi=30, **query)
        np.testing.assert_array_equal(_shown(reply), painted(cut, 0, 30), layer)


def test_two_genes_are_magenta_and_green(client: Client) -> None:
    pixels = client.get("tile/two/1/0/0", gene="KRT5", lo=0, hi=40, gene2="CD3E", lo2=0, hi2=44).pixels
    y, x = 70, 100
    first, second = expression()[0, y, x] / 40, expression()[2, y, x] / 44
    assert pixels[y, x].tolist() == [round(255 * first), round(255 * second), round(255 * first), 255]
    assert pixels[0, 0, 3] == 0


def test_classes_have_the_colours_of_the_legend(client: Client) -> None:
    about = client.get("api/about").json
    maps = {found["key"]: found for found in about["classes"]}
    assert set(maps) == {"clusters-4", "clusters-4-refined", "annotation-0", "annotation-1"}
    assert maps["annotation-0"]["names"] == ["Tumour", "Immune <b>", "Unclassified"]
    assert maps["clusters-4"]["names"][0].startswith("1 (")
    pixels = client.get("tile/classes/1/0/0", key="clusters-4").pixels
    for number, colour in enumerate(maps["clusters-4"]["colours"], start=1):
        y, x = np.argwhere(labels()[:, :256] == number)[7]
        assert "#" + bytes(pixels[y, x, :3]).hex() == colour
    assert pixels[0, 0, 3] == 0


@pytest.mark.parametrize(("zoom", "x", "y"), [(5, 3, 2), (4, 2, 1), (2, 1, 0), (0, 0, 0)])
def test_a_tile_of_the_image_is_the_slide_and_ends_with_it(client: Client, zoom: int, x: int, y: int) -> None:
    factor = 2 ** (5 - zoom)
    pixels = client.get(f"tile/image/{zoom}/{x}/{y}").pixels.astype(int)
    source = image()[:, y * 256 * factor :: factor, x * 256 * factor :: factor][:, :256, :256]
    rows = min(256, -(-GRID.content_shape_px[0] // factor) - y * 256)
    columns = min(256, -(-GRID.content_shape_px[1] // factor) - x * 256)
    there = pixels[:rows, :columns]
    assert (there[..., 3] == 255).all()
    assert np.abs(there[..., :3] - np.moveaxis(source, 0, -1)[:rows, :columns]).max() <= 5
    assert (pixels[rows:, :, 3] == 0).all()
    assert (pixels[:, columns:, 3] == 0).all()
