"""``python -m iscale``."""

from iscale.cli import main

main()
