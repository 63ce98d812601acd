"""Measurements; `make bench` prints the table of docs/performance.md."""
