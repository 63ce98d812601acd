"""`python -m babysea_server.cli`: how `up` starts its children."""

from babysea_server.cli import main

main()
