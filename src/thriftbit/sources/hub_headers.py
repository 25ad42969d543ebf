"""The headers of a request, and above all whether the user's Hub token is among them.

A token opens the user's private models and may write to them. It goes only to the Hub: the endpoint that
huggingface_hub uses, which HF_ENDPOINT may change. Any other address, such as the one of a GGUF file that somebody
posted, gets a request without it. When a server redirects elsewhere, huggingface_hub's HTTP client drops the token.
"""

from __future__ import annotations

from typing import Any

from huggingface_hub import constants
from huggingface_hub.utils import build_hf_headers, get_session  # type: ignore[attr-defined]

from thriftbit.errors import ThriftbitError, shown


def headers_for(url: str) -> dict[str, str]:
    """Return the headers of a request to `url`: with the user's Hub token if `url` is on the Hub, else without it.
    Raises ThriftbitError if `url` is not a valid address."""
    return build_hf_headers(token=None if _is_on_the_hub(url) else False)


def _is_on_the_hub(url: str) -> bool:
    """Return whether `url` has the scheme, host and port of the Hub's endpoint, and lies below its path."""
    asked, endpoint = _parsed(url), _parsed(constants.ENDPOINT)
    same_server = (asked.scheme, asked.host, asked.port) == (endpoint.scheme, endpoint.host, endpoint.port)
    return same_server and asked.path.startswith(endpoint.path.rstrip("/") + "/") and not asked.userinfo


def _parsed(url: str) -> Any:
    """Return the address as the client that sends the request takes it apart.

    A second parser could read "https://huggingface.co\\@evil.test" otherwise, and see the Hub where the client goes to
    evil.test."""
    try:
        return get_session().build_request("GET", url).url
    except Exception as error:  # the client's InvalidURL; the client is httpx or httpx2, as huggingface_hub has it
        raise ThriftbitError(f"{shown(url)} is not a valid address: {error}") from None
