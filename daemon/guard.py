"""Who may read the page: nobody by a name that is not the daemon's, and with a token only those who have it."""

from __future__ import annotations

import base64
import binascii
import hmac
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import msgspec
from starlette.datastructures import Headers
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from ..producers.key import BadKey, private

#: Whoever looks after the daemon need not have the token; these say no more than whether it works.
OPEN = ("/healthz", "/readyz")
TOKEN_LENGTH_MIN = 16
_PORT = re.compile(r":\d*\Z")


def refuse(status: int, why: str) -> Response:
    return Response(msgspec.json.encode({"error": why}), status, media_type="application/json")


def read_token(path: str | Path) -> str:
    """The token in a file that its owner alone can read, without blanks around it; BadKey when it is none."""
    token = private(path).strip()
    if len(token) < TOKEN_LENGTH_MIN or not token.isascii() or not token.isprintable():
        raise BadKey(f"{path}: a token has at least {TOKEN_LENGTH_MIN} characters; `openssl rand -hex 32` makes one")
    return token


class Guard:
    """The application behind two questions. `refused` counts requests, by `host` and `token`.

    The token comes as `Authorization: Bearer TOKEN`, or as the password of `Basic`, which is what a browser can do; the
    user is of no account then.
    """

    def __init__(self, app: ASGIApp, hosts: Sequence[str], token: str) -> None:
        self.app = app
        self.refused = Counter(host=0, token=0)
        self._names = {name.lower() for name in hosts if not name.startswith("*")}
        self._endings = tuple(name[1:].lower() for name in hosts if name.startswith("*"))
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        response = self._refusal(scope) if scope["type"] == "http" else None
        await (response or self.app)(scope, receive, send)

    def _refusal(self, scope: Scope) -> Response | None:
        """What is answered to one who may not read; None for one who may."""
        headers = Headers(scope=scope)
        if not self._named(headers.get("host", "")):
            self.refused["host"] += 1
            return refuse(400, "the daemon is not asked for by this name; web_hosts has further ones")
        if not self._token or scope["path"] in OPEN or self._knows(headers):
            return None
        self.refused["token"] += 1
        response = refuse(401, "the daemon asks for its token")
        for scheme in ("Bearer", "Basic"):
            response.headers.append("www-authenticate", f'{scheme} realm="forecastd"')
        return response

    def _named(self, host: str) -> bool:
        name = _PORT.sub("", host).lower()
        if not self._names and not self._endings:
            return True
        return name in self._names or (bool(self._endings) and name.endswith(self._endings))

    def _knows(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        said = given.strip().encode()
        if scheme.lower() == "basic":
            try:
                said = base64.b64decode(said, validate=True).partition(b":")[2]
            except binascii.Error:
                return False
        elif scheme.lower() != "bearer":
            return False
        return hmac.compare_digest(said, self._token)
