"""The addresses a key may be used from."""

import ipaddress
from collections.abc import Sequence

ENTRIES_MAX = 50
_MAPPED = ipaddress.IPv6Network("::ffff:0:0/96")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


def check_allowlist(entries: Sequence[str]) -> list[str]:
    """IP addresses and networks (CIDR) in canonical form, each once.

    Raises:
        ValueError: too many entries, or one that is neither an address nor a network.
    """
    if len(entries) > ENTRIES_MAX:
        raise ValueError(f"an allowlist has at most {ENTRIES_MAX} entries")
    return list(dict.fromkeys(str(_network(entry)) for entry in entries))


def networks(allowlist: Sequence[str]) -> Sequence[Network]:
    """The networks of an allowlist as it is stored."""
    return [_network(entry) for entry in allowlist]


def allows(client_ip: str, networks: Sequence[Network]) -> bool:
    """Whether an address lies in one of the networks; what is no address lies in none."""
    try:
        address = ipaddress.ip_address(client_ip)
    except ValueError:
        return False
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        address = address.ipv4_mapped
    return any(address in network for network in networks)


def _network(entry: str) -> Network:
    address, slash, length = entry.strip().partition("/")
    try:
        # A zone means one machine's own network; a mask is too easily one of the other kind, and then everybody's.
        if "%" in address or (slash and not length.isdecimal()):
            raise ValueError
        network = ipaddress.ip_network(address + slash + length, strict=False)
    except ValueError:
        raise ValueError(f"{entry!r} is not an IP address or network") from None
    # An IPv4 caller on a dual-stack socket and in a mapped notation are one and the same.
    if isinstance(network, ipaddress.IPv6Network) and network.subnet_of(_MAPPED):
        mapped = network.network_address.ipv4_mapped
        assert mapped is not None
        return ipaddress.IPv4Network((mapped, network.prefixlen - 96))
    return network
