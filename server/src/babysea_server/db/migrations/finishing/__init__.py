"""Finishing steps: what is taken away once no process of an older version is left. See docs/operating.md, Upgrading."""
