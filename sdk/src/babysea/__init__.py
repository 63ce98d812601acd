"""Python client for the BabySea API."""

__version__ = "0.1.0"
