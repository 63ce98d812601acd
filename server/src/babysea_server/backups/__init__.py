"""Backups: one dump of each region's database, the files, and what a restore has to know of them."""
