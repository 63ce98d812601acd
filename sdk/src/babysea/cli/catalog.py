"""The models on offer, read from the server and remembered for the shell's completion."""

import hashlib
import json
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from babysea import BabySea, LibraryModel, LibraryModels, NotFoundError, PermissionDeniedError
from babysea.cli.session import Session


def models(session: Session, client: BabySea) -> LibraryModels:
    """All models on offer.

    Raises:
        BabySeaError: they cannot be read.
    """
    found = client.library.models()
    _remember(session, {one.model_identifier: one.model_type for one in found.models})
    return found


def find(session: Session, client: BabySea, identifier: str) -> LibraryModel | None:
    """The model; None when only the server knows: an alias, or a key that may not read the models.

    Raises:
        BabySeaError: the models cannot be read for another reason.
    """
    try:
        models(session, client)
        return client.library.model(identifier)
    except (NotFoundError, PermissionDeniedError):
        return None


def remembered(session: Session) -> dict[str, str]:
    """What every model makes, by identifier, as it was last read. Asks no server."""
    with suppress(Exception):  # whatever is wrong, completing a word is not the moment to say so
        read = json.loads(_file(session).read_text(encoding="utf-8"))
        return {str(name): str(media) for name, media in read.items()}
    return {}


def _remember(session: Session, kinds: dict[str, str]) -> None:
    with suppress(Exception):  # a convenience: nothing depends on it
        path = _file(session)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", dir=path.parent, delete=False, encoding="utf-8") as file:
            json.dump(kinds, file)
        Path(file.name).replace(path)


def _file(session: Session) -> Path:
    found = session.connection()
    server = hashlib.sha256(f"{found.base_url} {found.region}".encode()).hexdigest()[:16]
    return session.folders.cache / f"models-{server}.json"


def prices(model: LibraryModel) -> str:
    """A model's price in words."""
    unit = "a second" if model.model_type == "video" else "each"
    if isinstance(model.model_pricing, float | int):
        return f"{model.model_pricing:g} {unit}"
    return ", ".join(f"{name} {price:g}" for name, price in model.model_pricing.items()) + f" {unit}"


def matching(found: Sequence[LibraryModel], words: Sequence[str]) -> list[LibraryModel]:
    """The models that have all words in their identifier, kind or providers."""

    def text(model: LibraryModel) -> str:
        return " ".join((model.model_identifier, model.model_type, *model.model_supported_provider)).lower()

    return [model for model in found if all(word.lower() in text(model) for word in words)]


def as_sent(found: LibraryModels, identifier: str) -> Any:
    """A model as the server described it."""
    return next(one for one in found.raw["models"] if one["model_identifier"] == identifier)
