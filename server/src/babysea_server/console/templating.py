"""Templates and static files: read once at the start, rendered with everything escaped."""

import functools
import hashlib
import hmac
import json
from collections.abc import Mapping
from datetime import UTC, datetime
from decimal import ROUND_HALF_UP, Decimal
from importlib import resources
from typing import Any
from urllib.parse import quote, urlencode

import jinja2
import msgspec
from markupsafe import Markup

from babysea_server import __version__
from babysea_server.console import charts
from babysea_server.console.icons import icon
from babysea_server.console.navigation import ROOT, SIDEBAR
from babysea_server.console.region import ConsoleRegion
from babysea_server.kit import money

_ADDRESS_HASH_LENGTH = 12
_TYPES = {".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8", ".svg": "image/svg+xml"}


class Asset(msgspec.Struct, frozen=True):
    """One static file."""

    content: bytes
    content_type: str
    version: str
    """Changes with the content."""


class Templates:
    """Renders pages. Whatever comes out of data is escaped: templates hold no `|safe`.

    Args:
        reload: look at the files again for each page, while they are being written.
    """

    def __init__(self, *, reload: bool = False) -> None:
        self._environment = jinja2.Environment(
            loader=jinja2.PackageLoader("babysea_server.console", "templates"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
            auto_reload=reload,
            extensions=["jinja2.ext.do", "jinja2.ext.loopcontrols"],
        )
        self.assets = dict(_assets())
        self._environment.globals |= {
            "ROOT": ROOT,
            "version": __version__,
            "sidebar": SIDEBAR,
            "asset": self.asset_url,
            "icon": icon,
            "json_data": json_data,
            "region_options": lambda regions: [(name, name.upper()) for name in regions],
            "chart_lines": charts.lines,
            "chart_bars": charts.bars,
        }
        self._environment.filters |= {
            "moment": moment,
            "iso": iso,
            "credits": credits,
            "count": lambda value: f"{value:,}",
            "ago": ago,
            "network": network,
        }

    def render(self, template: str, /, **context: Any) -> str:
        """A page as text."""
        return self._environment.get_template(template).render(**context)

    def asset_url(self, name: str) -> str:
        """The address of a static file, which changes with its content."""
        return f"{ROOT}/static/{name}?v={self.assets[name].version}"

    def account_url(self, region: str, slug: str, path: str, query: Mapping[str, Any]) -> str:
        """The address of a page of an account."""
        return f"{ROOT}/{region}/{slug}{quote(path, safe='/?=&-._~%#')}" + self.query(query)

    def query(self, query: Mapping[str, Any]) -> str:
        """What follows a path: a question mark and the arguments that are not None, or nothing."""
        text = urlencode({name: value for name, value in query.items() if value is not None})
        return f"?{text}" if text else ""

    def address_hash(self, region: ConsoleRegion, client_ip: str) -> str:
        """What is kept of an address: equal for equal ones, and nothing that leads back."""
        digest = hmac.new(region.keys.addresses, client_ip.encode("utf-8", "replace"), hashlib.sha256)
        return digest.hexdigest()[:_ADDRESS_HASH_LENGTH]


@functools.cache  # what is installed does not change under a process, and each compiles its pages
def templates() -> Templates:
    """Those that came with the server."""
    return Templates()


def moment(value: datetime | None) -> Markup:
    """A moment for people, in UTC, with its exact time for programs; a dash for none."""
    if value is None:
        return Markup('<span class="muted">–</span>')
    utc = value.astimezone(UTC)
    return Markup('<time datetime="{}">{}</time>').format(iso(utc), utc.strftime("%Y-%m-%d %H:%M UTC"))


def iso(value: datetime) -> str:
    """A moment for programs."""
    return value.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


_STEPS = ((60, "second", 1), (3600, "minute", 60), (86_400, "hour", 3600), (10**12, "day", 86_400))


def ago(value: datetime | None, now: datetime) -> Markup:
    """How long ago a moment was, with the moment itself as title; `Never` for none."""
    if value is None:
        return Markup('<span class="muted">Never</span>')
    seconds = max(0, int((now - value).total_seconds()))
    if seconds < 10:
        text = "just now"
    else:
        _, unit, length = next(step for step in _STEPS if seconds < step[0])
        number = seconds // length
        text = f"{number} {unit}{'' if number == 1 else 's'} ago"
    utc = value.astimezone(UTC)
    return Markup('<time datetime="{}" title="{}" data-relative>{}</time>').format(
        iso(utc), utc.strftime("%Y-%m-%d %H:%M:%S UTC"), text
    )


def credits(amount_micro: int, places: int | None = 3) -> str:
    """Micro-credits as dollars: `$12.480`; with None as many decimals as there are."""
    if places is None:
        exact = Decimal(money.text(abs(amount_micro)))
        return f"{'-' if amount_micro < 0 else ''}${exact:,}"
    amount = Decimal(abs(amount_micro)).scaleb(-6).quantize(Decimal(1).scaleb(-places), ROUND_HALF_UP)
    return f"{'-' if amount_micro < 0 else ''}${amount:,}"


def network(entry: str) -> str:
    """An entry of an allowlist for people: a single address without the length of its prefix."""
    return entry.removesuffix("/128" if ":" in entry else "/32")


def json_data(id: str, value: Any) -> Markup:
    """Data for a script, in an element that browsers never run."""
    text = json.dumps(value, ensure_ascii=True, separators=(",", ":"), default=str)
    for char, escaped in (("<", "\\u003c"), (">", "\\u003e"), ("&", "\\u0026")):
        text = text.replace(char, escaped)
    opening = Markup('<script type="application/json" id="{}">').format(id)
    return opening + Markup(text) + Markup("</script>")  # noqa: S704 - what could end it is spelled otherwise


def _assets() -> Any:
    for file in (resources.files("babysea_server.console") / "static").iterdir():
        suffix = file.name[file.name.rfind(".") :]
        if suffix in _TYPES:
            content = file.read_bytes()
            yield file.name, Asset(content, _TYPES[suffix], hashlib.sha256(content).hexdigest()[:12])
