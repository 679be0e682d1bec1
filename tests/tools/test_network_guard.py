"""Which addresses are public, and which hosts an allow list lets through."""

from __future__ import annotations

import socket
from ipaddress import ip_address
from typing import Any

import pytest

from muster.tools.network_guard import AddressRefused, Guard, is_public


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700::1111", "64:ff9b::808:808"])
def test_public(address: str) -> None:
    assert is_public(ip_address(address))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1", "127.8.9.1", "0.0.0.0", "10.0.0.1", "172.16.0.1", "192.168.1.1",
        "169.254.169.254", "100.100.100.200", "168.63.129.16", "224.0.0.1", "255.255.255.255",
        "::1", "::", "fe80::1", "fd00:ec2::254", "fec0::1", "ff02::1", "::ffff:127.0.0.1",
        "::ffff:169.254.169.254", "64:ff9b::7f00:1", "2002:7f00:1::", "192.0.2.1", "2001:db8::1",
    ],
)  # fmt: skip
def test_not_public(address: str) -> None:
    assert not is_public(ip_address(address))
    with pytest.raises(AddressRefused):
        Guard().check(address, 80)


@pytest.mark.parametrize(
    ("entry", "host", "port"),
    [
        ("127.0.0.1", "127.0.0.1", 80),
        ("127.0.0.1:8080", "127.0.0.1", 8080),
        ("10.1.0.0/16", "10.1.200.3", 443),
        ("[::1]:99", "::1", 99),
        ("::1", "[::1]", 1),
    ],
)
def test_allowed_addresses(entry: str, host: str, port: int) -> None:
    Guard([entry]).check(host, port)
    with pytest.raises(AddressRefused):
        Guard(["192.168.0.0/16", "other.org"]).check(host, port)


def test_an_allowed_port_is_no_other() -> None:
    with pytest.raises(AddressRefused, match=r"^127\.0\.0\.1 is not a public address"):
        Guard(["127.0.0.1:8080"]).check("127.0.0.1", 22)


def resolving(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    """Every name has these addresses."""

    async def getaddrinfo(_: object, host: str, port: int, **__: object) -> list[Any]:
        kinds = [socket.AF_INET6 if ":" in text else socket.AF_INET for text in addresses]
        return [(kind, 1, 6, "", (text, port)) for kind, text in zip(kinds, addresses, strict=True)]

    monkeypatch.setattr("asyncio.base_events.BaseEventLoop.getaddrinfo", getaddrinfo)


async def test_a_name_is_judged_by_all_its_addresses(monkeypatch: pytest.MonkeyPatch) -> None:
    resolving(monkeypatch, "10.0.0.1", "93.184.216.34", "fe80::1%eth0")
    found = await Guard().resolve("rebinding.example", 443, 0)
    assert [(item["host"], item["port"]) for item in found] == [("93.184.216.34", 443)]
    resolving(monkeypatch, "10.0.0.1")
    with pytest.raises(AddressRefused, match=r"rebinding\.example \(10\.0\.0\.1\) is not a public"):
        await Guard().resolve("rebinding.example", 443, 0)


@pytest.mark.parametrize("entry", ["api.internal", "*.internal", "API.Internal:443", "10.0.0.0/8"])
async def test_allowed_names(monkeypatch: pytest.MonkeyPatch, entry: str) -> None:
    resolving(monkeypatch, "10.0.0.1")
    found = await Guard([entry]).resolve("api.internal", 443, 0)
    assert [item["host"] for item in found] == ["10.0.0.1"]
    with pytest.raises(AddressRefused):
        await Guard(["internal", "other.internal"]).resolve("api.internal", 443, 0)
