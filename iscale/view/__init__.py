"""The viewer: a run as a page in the browser, served read-only on this machine; command ``view``."""

from iscale.view.server import Server, serve

__all__ = ["Server", "serve"]
