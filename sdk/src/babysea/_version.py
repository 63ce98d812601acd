"""The version, apart so that the client can tell it in its headers."""

__version__ = "0.1.0"
