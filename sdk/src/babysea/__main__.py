"""`python -m babysea`: the command line."""

from babysea.cli import main

main()
