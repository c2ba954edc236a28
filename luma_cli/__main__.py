"""`python -m luma_cli` is `luma`."""

from luma_cli.cli.app import main

main()
