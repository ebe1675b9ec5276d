"""The viewer's server: how long tiles take with four requests at once, and what memory it holds over 2,000 of them.

``make bench-view``. A slide of 16,384 px is painted, predicted and served by a process of its own, as ``iscale view``
does; four connections then ask for tiles, each drawn at random: its zoom among all, its place on the slide, its range
of colours, and its gene among those that are written, so that none is answered from the cache of tiles. ``--run RUN``
looks at a run that is there instead.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from threading import local
from typing import Any
from urllib.parse import urlencode, urlsplit

import numpy as np
import psutil

from benchmarks.report import machine, publish, table
from benchmarks.sampling import sample
from benchmarks.slides import bytes_of_run, check_room, lay_out
from iscale.store.layout import GENES_PER_CHUNK

AT_ONCE = 4
SERVE = """
import sys
from iscale import open_run
from iscale.view.server import view_run
view_run(open_run(sys.argv[1]), browser=False)
"""
HEAD = ["tiles", "n", "median, ms", "95th percentile, ms", "longest, ms", "per second"]


@dataclass
class Client:
    """Connections to a server, one per thread, kept open as a browser keeps them."""

    url: str
    process: psutil.Process

    def __post_init__(self) -> None:
        self._own = local()
        self.about = json.loads(self.get("api/about"))

    def get(self, path: str) -> bytes:
        """The body of an answer; anything but 200 ends the benchmark."""
        if not hasattr(self._own, "connection"):
            self._own.connection = http.client.HTTPConnection(urlsplit(self.url).netloc, timeout=120)
        self._own.connection.request("GET", urlsplit(self.url).path + path)
        answer = self._own.connection.getresponse()
        body = answer.read()
        if answer.status != 200:
            raise SystemExit(f"{path}: {answer.status} {body[:200]!r}")
        return bytes(body)

    def places(self, rng: np.random.Generator) -> str:
        """A zoom, and a tile of it."""
        zoom = int(rng.integers(0, self.about["finest"] + 1))
        height, width = (-(-n // (256 * 2 ** (self.about["finest"] - zoom))) for n in self.about["shape_px"])
        return f"{zoom}/{rng.integers(width)}/{rng.integers(height)}"


@contextmanager
def served(run: Path) -> Iterator[Client]:
    """A server in a process of its own."""
    started = subprocess.Popen([sys.executable, "-u", "-c", SERVE, str(run)], stdout=subprocess.PIPE, text=True)
    try:
        assert started.stdout is not None
        yield Client(started.stdout.readline().strip(), psutil.Process(started.pid))
    finally:
        started.terminate()
        started.wait(30)


def times(client: Client, path: Callable[[np.random.Generator], str], n: int, seed: int) -> list[float]:
    """Milliseconds of ``n`` tiles, four asked for at once."""
    paths = [path(rng) for rng in np.random.default_rng(seed).spawn(n)]

    def one(path: str) -> float:
        begin = time.perf_counter()
        client.get(path)
        return 1e3 * (time.perf_counter() - begin)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return list(pool.map(one, paths))


def row(name: str, took: list[float]) -> list[str]:
    """A line of the table."""
    middle, high = np.quantile(took, [0.5, 0.95])
    return [
        name,
        f"{len(took):,}",
        f"{middle:.0f}",
        f"{high:.0f}",
        f"{max(took):.0f}",
        f"{AT_ONCE / np.mean(took) * 1e3:.0f}",
    ]


def gene_tile(client: Client, genes: list[str]) -> Callable[[np.random.Generator], str]:
    """What asks for a random tile of a random gene, its colours over a random range."""

    def path(rng: np.random.Generator) -> str:
        asked = {"gene": rng.choice(genes), "lo": 0, "hi": f"{rng.uniform(1, 2):.6f}"}
        return f"tile/gene/{client.places(rng)}?{urlencode(asked)}"

    return path


def classes_tile(client: Client, key: str) -> Callable[[np.random.Generator], str]:
    """What asks for a random tile of a map of classes."""
    return lambda rng: f"tile/classes/{client.places(rng)}?key={key}"


def all_genes(client: Client) -> tuple[list[str], list[str]]:
    """Names of genes that are written, and of others, as far as a few searches give them."""
    found: dict[str, bool] = {}
    for text in "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZ":
        for gene in json.loads(client.get(f"api/genes?q={text}&most=50"))["genes"]:
            found[gene["name"]] = gene["written"]
    return [name for name in found if found[name]], [name for name in found if not found[name]]


def measure(run: Path, n: int) -> str:
    """All figures, as Markdown."""
    with served(run) as client:
        about = client.about
        written, others = all_genes(client)
        client.get(f"api/histogram?gene={(written or others)[0]}")
        memory = [(0, client.process.memory_info().rss)]
        took: list[float] = []
        for part in range(10):
            took += times(client, gene_tile(client, written or others), n // 10, part)
            memory.append((len(took), client.process.memory_info().rss))
        rows = [row("a gene, another one each time", took)]
        rows.append(row("one gene", times(client, gene_tile(client, (written or others)[-1:]), n // 4, 20)))
        if written and others:
            rows.append(row("a gene that is not written", times(client, gene_tile(client, others), n // 10, 21)))
        rows.append(row("the image", times(client, lambda rng: f"tile/image/{client.places(rng)}", n // 4, 22)))
        for classes in about["classes"][:1]:
            rows.append(row(classes["title"], times(client, classes_tile(client, classes["key"]), n // 4, 23)))
        last = client.process.memory_info().rss
    held = ", ".join(f"{bytes_ / 1e6:.0f} MB after {count:,}" for count, bytes_ in memory[::2])
    height, width = about["shape_px"]
    return (
        f"{width:,} x {height:,} px, {about['written']:,} genes written of {about['genes']:,}, {GENES_PER_CHUNK} to a "
        f"chunk; {AT_ONCE} requests at once, the client on the same cores; {machine()}, "
        f"load {os.getloadavg()[0]:.1f}\n\n"
        f"{table(HEAD, rows)}\n\nMemory of the server over the tiles of the first line: {held}; "
        f"{last / 1e6:.0f} MB after all lines."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=16384)
    parser.add_argument("--genes", type=int, default=50)
    parser.add_argument("--tiles", type=int, default=2000)
    parser.add_argument("--run", type=Path, help="a run that is there")
    parser.add_argument("--no-publish", action="store_true")
    options = parser.parse_args()
    say: Any = print if options.no_publish else lambda text: publish("view", text)
    if options.run:
        say(measure(options.run, options.tiles))
        return
    check_room(Path(tempfile.gettempdir()), bytes_of_run(options.side, options.genes, 0.5))
    with tempfile.TemporaryDirectory() as name:
        project = Path(name) / "project"
        lay_out(project, options.side, options.genes, 0.5, off_tissue=False)
        print("painted", flush=True)
        sample(["cluster", str(project), "--encoder", "texture", "--n-genes", str(options.genes)])
        print("predicted", flush=True)
        say(measure(project, options.tiles))


if __name__ == "__main__":
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    main()
