from collections.abc import Callable
from pathlib import Path

import pytest

from babysea_server.catalog.catalog import Catalog, load_catalog


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """The catalog that comes with the server."""
    return load_catalog()


@pytest.fixture
def overrides(tmp_path: Path) -> Callable[..., Path]:
    """Writes an operator's directory: `overrides({"models/bfl.toml": "..."})`."""

    def write(files: dict[str, str]) -> Path:
        for name, text in files.items():
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
        return tmp_path

    return write
