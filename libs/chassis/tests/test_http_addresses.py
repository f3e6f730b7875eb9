"""Which addresses calls to the outside may go to, before anything is sent."""

import pytest

from chassis.http import OutboundClient, OutboundRefused, is_public


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "10.1.2.3",
        "172.16.0.1",
        "192.168.1.1",
        "169.254.169.254",
        "100.64.0.1",
        "0.0.0.0",
        "224.0.0.1",
        "255.255.255.255",
        "192.0.2.1",
        "::1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "2002:7f00:1::",
        "64:ff9b::7f00:1",
        "64:ff9b:1::7f00:1",
        "::127.0.0.1",
        "::ffff:0:127.0.0.1",
        "fec0::1",
        "ff02::1",
    ],
)
def test_addresses_inside_are_not_public(address: str) -> None:
    assert not is_public(address)


@pytest.mark.parametrize("address", ["1.1.1.1", "104.16.0.1", "2606:4700::1", "::ffff:1.1.1.1", "64:ff9b::101:101"])
def test_addresses_outside_are_public(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/",
        "https://example.com:8443/",
        "ftp://example.com/",
        "file:///etc/passwd",
        "https://user:pw@example.com/",
        "https://127.0.0.1/",
        "https://localhost/",
        "https://[::1]/",
        "https://[::ffff:169.254.169.254]/",
        "https://2130706433/",
        "https://0x7f.1/",
        "https://" + "a" * 64 + ".com/",
        "https://a..example/",
        "//example.com",
        "not a url",
        "https://",
    ],
)
async def test_a_call_inside_or_by_another_way_is_refused_before_it_is_sent(url: str) -> None:
    client = OutboundClient("")
    try:
        with pytest.raises(OutboundRefused):
            await client.request("GET", url)
    finally:
        await client.close()


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com:443/",
        "https://example.com:8443/",
        "https://user:pw@example.com/",
        "http://127.0.0.1:8001/",
        "https://127.0.0.1:8000@example.com/",
    ],
)
def test_a_url_that_could_never_be_called_is_refused_without_a_look_up(url: str) -> None:
    with pytest.raises(OutboundRefused):
        OutboundClient("127.0.0.1:8000").check_url(url)
