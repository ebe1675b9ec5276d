"""The page's files, held in memory: ours, and BokehJS out of bokeh's package."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path

from iscale import __version__
from iscale.errors import InputError
from iscale.view.viewed import Answer

HERE = Path(__file__).parent / "static"

KINDS = {".html": "text/html", ".css": "text/css", ".js": "text/javascript"}
BOKEH = ("bokeh.min.js", "bokeh-api.min.js")


class Files:
    """Files by their path in the page's address; there are no others.

    Raises
    ------
    InputError
        Where bokeh is not installed.
    """

    def __init__(self) -> None:
        self._files = {path.name: _file(path) for path in sorted(HERE.iterdir()) if path.suffix in KINDS}
        self._files |= {name: _file(_bokeh() / "js" / name) for name in BOKEH}
        page = self._files.pop("page.html")
        self._files[""] = page._replace(body=page.body.replace(b"{{ version }}", __version__.encode()))

    def get(self, path: str) -> Answer | None:
        """A file, if it is one of the page's."""
        return self._files.get(path)


def _file(path: Path) -> Answer:
    return Answer(path.read_bytes(), f"{KINDS[path.suffix]}; charset=utf-8", keep=True)


def _bokeh() -> Path:
    """Folder of what bokeh's package brings for browsers."""
    try:
        found = import_module("bokeh.util.paths").static_path()
    except (ImportError, AttributeError):
        raise InputError(
            "The viewer's page needs BokehJS, which comes with the package bokeh, and that is not installed.",
            "Install it: pip install bokeh.",
        ) from None
    return Path(found)
