"""What the console gets of one region: its parts, built elsewhere."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import msgspec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from babysea_server.accounts.billing import Billing
from babysea_server.accounts.domains import DomainSite
from babysea_server.accounts.passwords import Passwords
from babysea_server.accounts.sessions import Sessions
from babysea_server.catalog.catalog import Catalog
from babysea_server.console.attempts import Attempts
from babysea_server.console.live import Live
from babysea_server.console.mailing import Mailing
from babysea_server.db.pool import Database
from babysea_server.generations.reading import Reader
from babysea_server.kit.calls import Plan
from babysea_server.kit.clock import Clock
from babysea_server.outputs.links import LinkSigner
from babysea_server.outputs.store import ObjectStore
from babysea_server.providers.registry import Registry
from babysea_server.routing.chain import Router
from babysea_server.routing.health import ProviderHealth
from babysea_server.routing.rankings import Rankings
from babysea_server.settings import Settings
from babysea_server.webhooks.secrets import SecretBox

if TYPE_CHECKING:
    from babysea_server.console.oidc_client import OidcClient

_FORMS = b"babysea/console/forms/v1"
_ADDRESSES = b"babysea/console/addresses/v1"


@dataclass(frozen=True, slots=True)
class Keys:
    """What is derived from the master key for the console alone."""

    forms: bytes = field(repr=False)
    addresses: bytes = field(repr=False)
    other_forms: bytes | None = field(default=None, repr=False)
    """Accepted, too, while the master key is changed."""

    @classmethod
    def derive(cls, master_key: bytes, other: bytes | None = None) -> "Keys":
        """The keys of an installation, and those of the other master key."""

        def derived(purpose: bytes, key: bytes) -> bytes:
            return HKDF(algorithm=SHA256(), length=32, salt=None, info=purpose).derive(key)

        return cls(
            derived(_FORMS, master_key),
            derived(_ADDRESSES, master_key),
            None if other is None else derived(_FORMS, other),
        )


class ConsoleRegion(msgspec.Struct, frozen=True):
    """One region's parts, for every page."""

    name: str
    settings: Settings
    clock: Clock
    db: Database
    reads: Database
    """For pages that may be some seconds behind: a replica, where there is one that keeps up."""
    plans: Mapping[str, Plan]
    catalog: Catalog
    store: ObjectStore
    signer: LinkSigner
    reader: Reader
    registry: Registry
    router: Router
    rankings: Rankings
    provider_health: ProviderHealth
    webhook_secrets: SecretBox
    """Seals the signing secrets of webhook endpoints."""
    secrets: SecretBox
    """Seals what the console keeps: authenticators' secrets, what is shown once."""
    keys: Keys
    sessions: Sessions
    passwords: Passwords
    attempts: Attempts
    mailing: Mailing
    live: Live
    origin: str
    """Scheme and authority of the console, for links in mail."""
    api_origin: str | None
    """Scheme and authority of the region's API as browsers reach it; None: the console's own."""
    domain_site: DomainSite
    billing: Billing | None
    """None: payments are not set up, and the operator adds credits."""
    oidc: "OidcClient | None"
    """None: there is no identity provider to sign in through."""
