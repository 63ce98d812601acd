"""`python -m babysea.mcp`."""

import sys

from babysea.mcp._main import main

sys.exit(main())
