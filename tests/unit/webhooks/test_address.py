"""Which addresses may be called."""

from __future__ import annotations

import ipaddress

import pytest

from core.errors import AddressRefused, WebhookUrlInvalid
from core.webhooks.address import check_url, is_public, resolve

PRIVATE = (
    *("127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.169.254", "0.0.0.0"),
    *("100.64.0.1", "224.0.0.1", "240.0.0.1", "255.255.255.255", "192.0.2.1", "198.18.0.1"),
    *("::", "::1", "fe80::1", "fc00::1", "ff02::1", "2001:db8::1"),
    # An IPv4 address inside: mapped, 6to4, Teredo, NAT64.
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "2002:7f00:1::", "2001:0:7f00:1::1"),
    *("64:ff9b::7f00:1", "64:ff9b:1::a00:1"),
)


@pytest.mark.parametrize("address", PRIVATE)
def test_what_is_not_public(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", ["8.8.8.8", "1.1.1.1", "2606:4700:4700::1111"])
def test_what_is_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://example.com/", "HTTPS is needed"),
        ("ftp://example.com/", "allowed are addresses such as"),
        ("https://", "allowed are addresses such as"),
        ("https:///hook", "allowed are addresses such as"),
        ("hook", "allowed are addresses such as"),
        ("https://me:secret@example.com/", "no user, password or fragment"),
        ("https://example.com/#part", "no user, password or fragment"),
        ("https://example.com:99999/", "not an address"),
        ("https://[::1/", "not an address"),
        ("https://exa mple.com/", "printable ASCII"),
        ("https://example.com/\n", "printable ASCII"),
        ("https://bücher.example/", "printable ASCII"),
        ("https://example.com/" + "a" * 2000, "2000 printable ASCII"),
        ("https://127.0.0.1/", "not a public address"),
        ("https://[::ffff:10.0.0.1]/", "not a public address"),
        ("https://169.254.169.254/latest/meta-data", "FEWLABELS_WEBHOOK_HOSTS"),
    ],
)
def test_addresses_that_can_never_be_called(url: str, said: str) -> None:
    with pytest.raises(WebhookUrlInvalid, match="url: found") as refused:
        check_url(url, frozenset())
    assert said in str(refused.value)


@pytest.mark.parametrize(
    "url", ["https://example.com/hook?x=1", "https://example.com:8443/", "https://8.8.8.8/"]
)
def test_addresses_that_may_be_called(url: str) -> None:
    check_url(url, frozenset())  # raises where it refuses
    with pytest.raises(WebhookUrlInvalid, match="HTTPS"):
        check_url(url.replace("https", "http", 1), frozenset())


def test_a_setting_allows_a_host_and_no_other() -> None:
    trusted = frozenset({"127.0.0.1", "hooks.internal"})
    check_url("http://127.0.0.1:9000/", trusted)
    check_url("http://HOOKS.internal/", trusted)
    with pytest.raises(WebhookUrlInvalid):
        check_url("http://127.0.0.2:9000/", trusted)


# What a resolver takes for 127.0.0.1, though it does not look like it.
@pytest.mark.parametrize("host", ["localhost", "127.1", "0x7f000001", "2130706433", "0"])
def test_names_that_lead_inside_are_refused_when_they_are_called(host: str) -> None:
    with pytest.raises(AddressRefused, match="not a public address"):
        resolve(host, 443, frozenset())
    assert "127.0.0.1" in resolve("localhost", 443, frozenset({"localhost"}))
