"""Maps of clusters, and the folders that they go to."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from iscale.plots.labels import class_colours, draw_labels, label_map
from iscale.plots.overview import reduction
from iscale.store.run_store import RunStore

PREFIX = "clusters-gene_"
MARKERS = "markers.tsv"
LABELS = "annotation.tsv"
"""What the stage ``annotate`` says of the clusters."""
OURS = ("labels.png", "refined/labels.png", MARKERS, f"refined/{MARKERS}")


def cluster_folder(store: RunStore, k: int) -> Path:
    """Folder of what is known of ``k`` clusters (published name)."""
    return store.folder / f"{PREFIX}{k}"


def marker_table(store: RunStore, which: str, k: int) -> Path:
    """Table of the genes that mark the clusters ``labels`` or ``refined``."""
    folder = cluster_folder(store, k)
    return (folder if which == "labels" else folder / which) / MARKERS


def figure_files(store: RunStore, k: int) -> tuple[Path, ...]:
    """Files that `draw_clusters` writes."""
    folder = cluster_folder(store, k)
    masks = (folder / "masks" / f"{cluster}.png" for cluster in range(1, k + 1))
    return (folder / "labels.png", folder / "refined" / "labels.png", *masks)


def clear_figures(store: RunStore, n_clusters: tuple[int, ...]) -> None:
    """Remove maps and labels of an earlier run's clusters, and all of numbers of clusters that this run has not."""
    for folder in store.folder.glob(f"{PREFIX}*"):
        for mask in (folder / "masks").glob("*.png"):
            mask.unlink()
        (folder / LABELS).unlink(missing_ok=True)
        if folder.name in {f"{PREFIX}{k}" for k in n_clusters}:
            continue
        for name in OURS:
            (folder / name).unlink(missing_ok=True)
        for inner in (folder / "refined", folder / "masks", folder):
            if inner.is_dir() and not any(inner.iterdir()):
                inner.rmdir()


def draw_clusters(store: RunStore, row: int, k: int, superpixel_um: float) -> None:
    """Draw the maps of ``k`` clusters, which are one row of the labels' arrays, and one mask per cluster."""
    factor = reduction(store.array("clusters/labels").shape)
    um_per_cell = superpixel_um * factor
    colours = class_colours(k)
    files = figure_files(store, k)
    titles = {"labels": f"{k} clusters", "refined": f"{k} clusters of superpixels with nuclei"}
    for path, (which, title) in zip(files, titles.items(), strict=False):
        sizes = np.asarray(store.array(f"clusters/{which}_sizes")[row, :k])
        shares = sizes / max(1, sizes.sum())
        names = [f"{cluster} ({share:.1%})" for cluster, share in enumerate(shares, start=1)]
        drawn = label_map(store.array(f"clusters/{which}"), row, factor)
        draw_labels(path, drawn, names, colours, um_per_cell, title)
        if which == "labels":
            for cluster, mask in enumerate(files[2:], start=1):
                own, name = (drawn == cluster).astype(np.uint8), names[cluster - 1]
                draw_labels(mask, own, [name], [colours[cluster - 1]], um_per_cell, f"Cluster {cluster} of {k}")
