"""``python -m iscale``."""

from iscale.cli.app import main

main()
