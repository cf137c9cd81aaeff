"""One URL has one meaning, and whatever could have two is refused with the character where it goes wrong."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from interlock.core.web import HttpDestination
from interlock.lib.addresses import why_refused
from interlock.lib.url import UrlFault, follow, parse_url

HOSTILE = {
    "https://good.example@evil.example/": 21,
    "https://user:pw@good.example/": 16,
    "https://good.example\\@evil.example/": 21,
    "https://good.example:80@evil.example/": 24,
    "https:\\\\good.example/": 7,
    "https:/good.example/": 1,
    "//good.example/": 1,
    "file:///etc/passwd": 1,
    "gopher://good.example/": 1,
    "HTTPS://good.example/": 1,
    " https://good.example/": 1,
    "https://good.example/ HTTP/1.1\r\nHost: evil": 22,
    "https://good.example/%0d%0aHost:evil": 22,
    "https://good.example/a\r\nb": 23,
    "https://good.example\t/": 21,
    "https://g\u043e\u043ed.example/": 10,
    "https://good\u3002example/": 13,
    "https://good.example\u2215.evil.example/": 21,
    "https://good.example/#frag": 22,
    "https://good.example#@evil.example/": 21,
    "https:///path": 9,
    "https://": 9,
    "https://good..example/": 9,
    "https://.good.example/": 9,
    "https://good.example./": 9,
    "https://-good.example/": 9,
    "https://go%6fd.example/": 9,
    "https://good.example:/": 22,
    "https://good.example:0/": 22,
    "https://good.example:65536/": 22,
    "https://good.example:080/": 22,
    "https://good.example:+80/": 22,
    "https://good.example:80:80/": 9,
    "https://2130706433/": 9,
    "https://0x7f000001/": 9,
    "https://0x7f.0.0.1/": 9,
    "https://0177.0.0.1/": 9,
    "https://127.1/": 9,
    "https://127.0.0.1.nip.0x1/": 9,
    "https://[::1%25lo]/": 9,
    "https://[::ffff:127.0.0.1]/": 9,
    "https://[0:0:0:0:0:0:0:1]/": 9,
    "https://[::1/": 9,
    "https://::1/": 9,
    "https://good.example/a/../b": 24,
    "https://good.example/a/./b": 24,
    "https://good.example/a/..;x/b": 24,
    "https://good.example/%2e%2e/b": 22,
    "https://good.example/a%2fb": 23,
    "https://good.example/a%5cb": 23,
    "https://good.example/a%00": 23,
    "https://good.example/a%252e": 23,
    "https://good.example//b": 22,
    "https://good.example/a//b": 24,
    "https://good.example/a%": 23,
    "https://good.example/a%zz": 23,
    "https://good.example/?a=<b>": 25,
    "https://good.example/" + "a" * 5000: 4096,
}


@pytest.mark.parametrize(("text", "character"), HOSTILE.items(), ids=[text[:40] for text in HOSTILE])
def test_a_hostile_url_is_refused_with_its_place(text: str, character: int) -> None:
    with pytest.raises(UrlFault) as caught:
        parse_url(text)
    assert caught.value.character == character, caught.value


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("https://Good.Example", "https://good.example/"),
        ("https://good.example:443/a", "https://good.example/a"),
        ("https://good.example:8443/a?b=c%2F&d", "https://good.example:8443/a?b=c%2F&d"),
        ("https://good.example?x", "https://good.example/?x"),
        ("http://10.0.0.1:8080/a%20b;c=1/", "http://10.0.0.1:8080/a%20b;c=1/"),
        ("http://[fd00::1]:80/", "http://[fd00::1]/"),
        ("https://xn--bcher-kva.example/", "https://xn--bcher-kva.example/"),
    ],
)
def test_an_honest_url_has_one_form(text: str, canonical: str) -> None:
    assert str(parse_url(text)) == canonical
    assert str(parse_url(canonical)) == canonical


@given(st.text(max_size=60) | st.from_regex(r"https?://[!-~]{0,40}", fullmatch=True))
def test_what_is_accepted_is_accepted_again_as_the_same(text: str) -> None:
    try:
        url = parse_url(text)
    except UrlFault:
        return
    assert parse_url(str(url)) == url
    assert all("!" <= letter <= "~" for letter in str(url))


@pytest.mark.parametrize("location", ["//evil.example/", "other", "../up", "", "/a/../b", "javascript:x", "\\\\evil"])
def test_a_redirect_that_could_mean_two_things_is_refused(location: str) -> None:
    with pytest.raises(UrlFault):
        follow(parse_url("https://good.example/a/b?c"), location)


def test_a_redirect_leads_to_a_path_a_query_or_a_whole_url() -> None:
    base = parse_url("https://good.example:8443/a/b?c")
    assert str(follow(base, "/x?y")) == "https://good.example:8443/x?y"
    assert str(follow(base, "?y")) == "https://good.example:8443/a/b?y"
    assert str(follow(base, "https://other.example/z")) == "https://other.example/z"


PUBLIC = ("93.184.216.34", "2606:2800:220:1::1", "8.8.8.8")
PRIVATE = ("10.1.2.3", "172.16.0.1", "192.168.1.1", "127.0.0.1", "127.9.9.9", "::1", "fd12::1", "100.64.0.1")
BY_NUMBER = ("169.254.169.254", "169.254.1.1", "fe80::1", "fd00:ec2::254", "100.100.100.200", "168.63.129.16")
NEVER = (
    *(
        "0.0.0.0",  # noqa: S104 - it is refused
        "0.1.2.3",
        "::",
        "224.0.0.1",
        "239.1.1.1",
        "ff02::1",
        "255.255.255.255",
        "240.0.0.1",
        "192.0.2.1",
    ),
    *("::ffff:127.0.0.1", "::ffff:8.8.8.8", "2002:7f00:1::", "64:ff9b::7f00:1", "::7f00:1", "2001:db8::1", "words"),
    "2001:0:4136:e378:8000:63bf:3fff:fdd2",
)


def test_a_public_address_is_called_by_everybody() -> None:
    assert [why_refused(address) for address in PUBLIC] == [None] * len(PUBLIC)


@pytest.mark.parametrize("address", PRIVATE)
def test_a_private_address_is_called_where_that_was_declared(address: str) -> None:
    assert why_refused(address)
    assert why_refused(address, private=True) is None


@pytest.mark.parametrize("address", BY_NUMBER)
def test_where_credentials_are_handed_out_is_called_only_by_number(address: str) -> None:
    assert why_refused(address)
    assert why_refused(address, private=True)
    assert why_refused(address, named=True)
    assert why_refused(address, private=True, named=True) is None


@pytest.mark.parametrize("address", NEVER)
def test_some_addresses_are_never_called(address: str) -> None:
    assert why_refused(address)
    if address not in {"192.0.2.1", "2001:db8::1"}:
        assert why_refused(address, private=True, named=True)


def test_a_pattern_is_one_part_of_a_path_or_all_below() -> None:
    declared = HttpDestination(
        url="https://api.example.com", methods=("GET",), paths=("/v1/orders/*", "/v2/**", "/a.b")
    )

    def is_open(path: str) -> bool:
        return declared.why_not("GET", parse_url(f"https://api.example.com{path}")) is None

    assert [path for path in ("/v1/orders/7", "/v2/a/b", "/v2/", "/a.b") if not is_open(path)] == []
    shut = ("/v1/orders", "/v1/orders/", "/v1/orders/7/lines", "/v2", "/axb", "/", "/v1/orders/7%0A"[:12] + "/x")
    assert [path for path in shut if is_open(path)] == []
    assert declared.why_not("POST", parse_url("https://api.example.com/v2/a"))
    assert declared.why_not("GET", parse_url("https://api.example.com:8443/v2/a"))
    assert declared.why_not("GET", parse_url("http://api.example.com/v2/a"))
