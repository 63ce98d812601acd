"""The models on offer, kept for a while: which path a model is generated with depends on what it makes."""

from difflib import get_close_matches

from babysea._answers import read_answer
from babysea._effects import Flow
from babysea._errors import NotFoundError
from babysea._exchange import Exchange
from babysea._operations import LIBRARY_MODELS
from babysea._types import LibraryModel, LibraryModels

_KEPT_S = 300.0


class Catalog:
    """The models of one server, read at most every five minutes, and once more for a model that is not among them."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._kept: tuple[float, LibraryModels] | None = None

    def models(self, *, at_most_s: float = _KEPT_S) -> Flow[LibraryModels]:
        """All models, as they were no longer ago than that.

        Raises:
            BabySeaError: they cannot be read.
        """
        now = self._exchange.clock.monotonic()
        if self._kept is not None and now - self._kept[0] < at_most_s:
            return self._kept[1]
        success = yield from self._exchange.call(LIBRARY_MODELS.request())
        models = read_answer(LibraryModels, success)
        self._kept = (now, models)
        return models

    def find(self, identifier: str) -> Flow[LibraryModel | None]:
        """The model, or None.

        Raises:
            BabySeaError: the models cannot be read.
        """
        before = self._kept
        for at_most_s in (_KEPT_S, 0.0):
            models = yield from self.models(at_most_s=at_most_s)
            for model in models.models:
                if model.model_identifier == identifier:
                    return model
            if self._kept is not before:
                break  # they were read just now
        return None

    def model(self, identifier: str) -> Flow[LibraryModel]:
        """The model.

        Raises:
            NotFoundError: it is not on offer; the message names those that are spelled like it.
            BabySeaError: the models cannot be read.
        """
        model = yield from self.find(identifier)
        if model is not None:
            return model
        names = [one.model_identifier for one in (yield from self.models()).models]
        similar = get_close_matches(identifier, names, n=3)
        hint = f"; do you mean {' or '.join(similar)}?" if similar else ""
        raise NotFoundError(
            f"no model on offer is called {identifier}{hint}", code="BSE2011", type="model_not_found"
        )
