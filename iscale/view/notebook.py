"""The page in a notebook: a frame on a server that lives as long as the kernel."""

from __future__ import annotations

import html

from iscale.results import Run
from iscale.view.server import IN_NOTEBOOKS, Server, serve


class View:
    """A run's page, shown in a notebook by being the last thing of a cell.

    Parameters
    ----------
    server
        Who serves it.
    height
        Of the frame, in px.
    """

    def __init__(self, server: Server, height: int = 700) -> None:
        self._server, self._height = server, height

    @property
    def url(self) -> str:
        """The page's address, for a tab of its own."""
        return self._server.url

    def stop(self) -> None:
        """Stop serving."""
        self._server.stop()

    def __repr__(self) -> str:
        return f"iscale view at {self.url}"

    def _repr_html_(self) -> str:
        url = html.escape(self.url, quote=True)
        return (
            f'<iframe src="{url}" title="iscale viewer" width="100%" height="{self._height}" '
            f'style="border: 1px solid #888; border-radius: 4px"></iframe>'
            f'<p>The kernel serves this view on its own machine: <a href="{url}" target="_blank" rel="noreferrer">'
            f"open it in a tab</a>. With the kernel elsewhere, forward port {self._server.port} first: "
            f"<code>ssh -L {self._server.port}:127.0.0.1:{self._server.port} MACHINE</code></p>"
        )


def view(run: Run, *, height: int = 700) -> View:
    """Serve a run's page from this process, to be shown in a notebook.

    Parameters
    ----------
    run
        The run.
    height
        Of the frame, in px.

    Raises
    ------
    InputError
        Where there is nothing to show.
    """
    return View(serve(run, frames=IN_NOTEBOOKS), height)
