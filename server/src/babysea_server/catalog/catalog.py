"""The catalog in memory: look-ups by identifier, and loading it from its files."""

import difflib
import functools
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from babysea_server.catalog.build import build
from babysea_server.catalog.markup import Markup
from babysea_server.catalog.sources import Faults, read_sources
from babysea_server.catalog.types import Model, Provider
from babysea_server.errors import MODEL_MEDIA_MISMATCH, MODEL_NOT_FOUND, ApiError


class CatalogError(Exception):
    """The catalog's files have faults; the text lists every one with its file, model and field."""

    def __init__(self, faults: list[str]) -> None:
        self.faults = tuple(faults)
        count = "one fault" if len(faults) == 1 else f"{len(faults)} faults"
        super().__init__(f"the catalog has {count}:\n" + "\n".join(f"  {fault}" for fault in faults))


class Catalog:
    """All models and providers, immutable after loading."""

    def __init__(self, models: Mapping[str, Model], providers: Mapping[str, Provider]) -> None:
        self.all_models: Mapping[str, Model] = dict(sorted(models.items()))
        """By identifier, also those that are not on offer because they have no price."""
        self.models: Mapping[str, Model] = {
            identifier: model for identifier, model in self.all_models.items() if model.offered
        }
        """Those on offer, by identifier, alphabetically."""
        self.providers: Mapping[str, Provider] = dict(sorted(providers.items()))
        self._by_name = dict(self.models)
        for model in self.models.values():
            for alias in model.aliases:
                self._by_name[alias] = model

    def model(self, identifier: str) -> Model:
        """The model on offer with this identifier or alias.

        Raises:
            ApiError: BSE2011, with the nearest known identifier where one is near.
        """
        model = self._by_name.get(identifier)
        if model is not None:
            return model
        message = f"There is no model {identifier!r}."
        details = {"field": "model_identifier"}
        near = difflib.get_close_matches(identifier, self._by_name, n=1, cutoff=0.6)
        if near:
            suggestion = self._by_name[near[0]].identifier
            message += f" Did you mean {suggestion!r}?"
            details["suggestion"] = suggestion
        else:
            message += " GET /v1/library/models lists what is on offer."
        raise ApiError(MODEL_NOT_FOUND, message, details=details)

    def model_for(self, identifier: str, media: str) -> Model:
        """The model on offer with this identifier, which must make this kind of media.

        Raises:
            ApiError: BSE2011, or BSE2012 with the right path.
        """
        model = self.model(identifier)
        if model.media != media:
            path = f"/v1/generate/{model.media}/{model.identifier}"
            raise ApiError(
                MODEL_MEDIA_MISMATCH,
                f"{model.identifier} makes {model.media}, not {media}: use POST {path}.",
                details={"field": "media", "allowed": [model.media], "path": path},
            )
        return model


def load_catalog(
    overrides: Path | None = None,
    markup: Markup | None = None,
    *,
    packages: Iterable[Path] = (),
    joined: Collection[str] = (),
) -> Catalog:
    """The catalog from the server's own files, the operator's directory laid over them, and the markup.

    Args:
        packages: directories of the same layout that provider packages bring along.
        joined: optional providers that the operator configured.

    Raises:
        CatalogError: with all faults at once.
    """
    if overrides is None and markup is None:
        return _installed(tuple(packages), frozenset(joined))
    return _load(overrides, markup or Markup(), packages, joined)


@functools.lru_cache(maxsize=16)
def _installed(packages: tuple[Path, ...], joined: frozenset[str]) -> Catalog:
    """Without anything of the operator's: what is installed does not change under a process."""
    return _load(None, Markup(), packages, joined)


def _load(
    overrides: Path | None, markup: Markup, packages: Iterable[Path], joined: Collection[str]
) -> Catalog:
    faults = Faults()
    sources = read_sources(overrides, faults, packages)
    models, providers = build(sources, markup, faults, joined)
    if faults.lines:
        raise CatalogError(faults.lines)
    return Catalog(models, providers)
