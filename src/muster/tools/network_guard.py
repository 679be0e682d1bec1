"""Keeps tools that fetch URLs out of the private network (server-side request forgery).

A host is resolved once, its addresses are judged, and the connection goes to one of those that were
judged: a name that answers differently the second time gains nothing by it. `Guard.check` judges a
URL's literal address, which needs no resolving; `Guard.resolver` is for aiohttp's connector.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Iterable
from fnmatch import fnmatchcase
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TYPE_CHECKING, TypeAlias

if TYPE_CHECKING:
    from aiohttp.abc import AbstractResolver, ResolveResult

__all__ = ("AddressRefused", "Guard", "is_public")

Address: TypeAlias = IPv4Address | IPv6Address

_NAT64 = IPv6Network("64:ff9b::/96")
_SITE_LOCAL = IPv6Network("fec0::/10")
_METADATA = frozenset({IPv4Address("168.63.129.16")})
"""A cloud's own service at an address that looks public; the others' are link-local or private."""


class AddressRefused(OSError):
    """The address lies where tools may not go."""


class Guard:
    """Which hosts may be connected to: all public ones, and those of `allow`.

    `allow` holds host names (`api.internal`, `*.internal`), addresses and networks
    (`10.1.0.0/16`), each with or without a port (`localhost:8080`).
    """

    def __init__(self, allow: Iterable[str] = ()) -> None:
        self._names: list[tuple[str, int | None]] = []
        self._networks: list[tuple[IPv4Network | IPv6Network, int | None]] = []
        for entry in allow:
            host, port = _split_port(entry.strip().lower())
            try:
                self._networks.append((ip_network(host, strict=False), port))
            except ValueError:
                self._names.append((host.rstrip("."), port))

    def check(self, host: str, port: int | None) -> None:
        """Raise AddressRefused when `host` is the text of an address that may not be used."""
        try:
            address = ip_address(host.strip("[]").partition("%")[0])
        except ValueError:
            return
        if not self._may(address, port):
            raise AddressRefused(_refusal(host, address))

    async def resolve(self, host: str, port: int, family: int) -> list[ResolveResult]:
        """The addresses of `host` that may be used; raises OSError when there are none."""
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, family=family, flags=socket.AI_ADDRCONFIG
        )
        is_named = self._allows_name(host, port)
        usable: list[ResolveResult] = []
        refused = ""
        for kind, _, protocol, _, where in found:
            address = str(where[0]).partition("%")[0]
            if not is_named and not self._may(ip_address(address), port):
                refused = _refusal(host, ip_address(address))
                continue
            usable.append(
                {
                    "hostname": host,
                    "host": str(where[0]),
                    "port": port,
                    "family": kind,
                    "proto": protocol,
                    "flags": socket.AI_NUMERICHOST,
                }
            )
        if not usable:
            raise AddressRefused(refused or f"{host} has no address")
        return usable

    def resolver(self) -> AbstractResolver:
        """For `aiohttp.TCPConnector(resolver=…)`."""
        from aiohttp.abc import AbstractResolver

        guard = self

        class Resolver(AbstractResolver):
            async def resolve(
                self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
            ) -> list[ResolveResult]:
                return await guard.resolve(host, port, family)

            async def close(self) -> None:
                pass

        return Resolver()

    def _may(self, address: Address, port: int | None) -> bool:
        return is_public(address) or any(
            address in network and only in (None, port)
            for network, only in self._networks
            if network.version == address.version
        )

    def _allows_name(self, host: str, port: int) -> bool:
        name = host.lower().rstrip(".")
        return any(
            fnmatchcase(name, pattern) and only in (None, port) for pattern, only in self._names
        )


def is_public(address: Address) -> bool:
    """False for private, loopback, link-local, multicast and other addresses that are nobody's on
    the open internet, in whatever IPv6 form they are written."""
    inner = _embedded(address)
    if inner is not None:
        return is_public(inner)
    if address.is_multicast or address in _METADATA:
        return False
    if isinstance(address, IPv6Address) and address in _SITE_LOCAL:
        return False
    return address.is_global


def _embedded(address: Address) -> IPv4Address | None:
    """The IPv4 address that an IPv6 one stands for."""
    if isinstance(address, IPv4Address):
        return None
    if address.ipv4_mapped is not None:
        return address.ipv4_mapped
    if address.sixtofour is not None:
        return address.sixtofour
    if address.teredo is not None:
        return address.teredo[1]
    if address in _NAT64:
        return IPv4Address(int(address) & 0xFFFF_FFFF)
    return None


def _refusal(host: str, address: Address) -> str:
    where = str(address) if str(address) in host else f"{host} ({address})"
    return f"{where} is not a public address, and not in `allowHosts`"


def _split_port(entry: str) -> tuple[str, int | None]:
    """`host:8080` in two; an IPv6 address with a port stands in brackets."""
    if entry.startswith("["):
        host, _, rest = entry[1:].partition("]")
        return host, int(rest[1:]) if rest[1:].isdigit() else None
    host, colon, port = entry.rpartition(":")
    if colon and ":" not in host and port.isdigit():
        return host, int(port)
    return entry, None
