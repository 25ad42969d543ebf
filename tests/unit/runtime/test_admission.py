"""Which requests are answered, by their heads."""

from __future__ import annotations

import pytest

from thriftbit.runtime.admission import Admission, admission_at

HERE = admission_at("127.0.0.1", 1000)
GET = (b"GET", b"/")


def status(admission: Admission, method: bytes, target: bytes, **headers: str) -> int:
    """Return 200 for what is answered. headers: content_length="5"."""
    sent = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]
    refusal = admission.refusal(method, target, sent)
    return refusal.status if refusal else 200


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.1:8080", "localhost:1", "LocalHost", "[::1]:8080", "127.9.9.9"])
def test_this_computers_own_names_are_answered(host: str) -> None:
    assert status(HERE, *GET, host=host) == 200
    assert status(HERE, b"POST", b"/", host=host, origin=f"http://{host}", sec_fetch_site="same-origin") == 200


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example", "evil.example:8080", "127.0.0.1.evil.example", "localhost.evil.example", "evil.localhost"),
        *("127.0.0.1@evil.example", "evil.example@127.0.0.1", "127.0.0.1 evil", "", ":80", "192.168.1.7", "[fe80::1]"),
        *("0x7f000001.evil", "127.0.0.1:8080:9", "[::1", "127.0.0.1,evil", "127.0.0.1/..", "\xe9vil"),
    ],
)
def test_every_other_name_is_refused(host: str) -> None:
    assert status(HERE, *GET, host=host) == 403


def test_a_host_that_is_missing_or_given_twice_is_refused() -> None:
    assert status(HERE, *GET) == 403
    assert HERE.refusal(*GET, [(b"host", b"127.0.0.1"), (b"host", b"127.0.0.1")]) is not None


@pytest.mark.parametrize(
    "origin",
    [
        *("http://evil.example", "null", "", "http://127.0.0.1:3000", "http://localhost:8080", "http://127.0.0.1"),
        *("http://127.0.0.1:8080.evil.example", "http://127.0.0.1:8080/", "file://", "chrome-extension://abc"),
    ],
)
def test_pages_of_other_places_are_refused(origin: str) -> None:
    for method in (b"GET", b"POST", b"OPTIONS", b"DELETE"):
        assert status(HERE, method, b"/v1/models", host="127.0.0.1:8080", origin=origin) == 403


def test_two_origins_are_refused() -> None:
    here = (b"origin", b"http://127.0.0.1")
    assert HERE.refusal(*GET, [(b"host", b"127.0.0.1"), here, (b"origin", b"http://evil.example")]) is not None


@pytest.mark.parametrize("site", ["cross-site", "same-site"])
def test_what_a_browser_says_comes_from_another_site_is_refused_but_for_links(site: str) -> None:
    """Pictures, scripts and frames come without an Origin."""
    image = {"sec_fetch_site": site, "sec_fetch_mode": "no-cors", "sec_fetch_dest": "image"}
    frame = {"sec_fetch_site": site, "sec_fetch_mode": "navigate", "sec_fetch_dest": "iframe"}
    link = {"sec_fetch_site": site, "sec_fetch_mode": "navigate", "sec_fetch_dest": "document"}
    assert status(HERE, *GET, host="127.0.0.1", **image) == status(HERE, *GET, host="127.0.0.1", **frame) == 403
    assert status(HERE, *GET, host="127.0.0.1", **link) == 200
    assert status(HERE, b"POST", b"/", host="127.0.0.1", **link) == 403


def test_long_bodies_and_odd_lengths_are_refused_by_the_head() -> None:
    for length, expected in (("1000", 200), ("1001", 413), ("9" * 400, 413), ("-1", 400), ("1e3", 400), ("", 400)):
        assert status(HERE, b"POST", b"/", host="localhost", content_length=length) == expected, length


def test_odd_methods_and_targets_are_refused() -> None:
    assert status(HERE, b"CONNECT", b"evil.example:80", host="127.0.0.1") == 405
    assert status(HERE, b"TRACE", b"/", host="127.0.0.1") == 405
    assert status(HERE, b"GET", b"http://evil.example/", host="127.0.0.1") == 400


def test_a_server_for_others_answers_to_its_addresses_and_its_own_names() -> None:
    public = admission_at("0.0.0.0", 1000)
    assert status(public, *GET, host="192.168.1.7:8080") == status(public, *GET, host="localhost") == 200
    assert status(public, *GET, host="evil.example") == 403
    assert status(admission_at("box.example", 1000), *GET, host="box.example:8080") == 200
