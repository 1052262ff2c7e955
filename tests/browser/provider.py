"""A provider of OpenID Connect that lets everyone in, as the person it is configured for."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs, urlencode, urlparse

from joserfc import jwt
from joserfc.jwk import RSAKey

CLIENT = "dataloupe"


class Provider:
    """Its address, and the claims of the person who signs in next."""

    def __init__(self, server: ThreadingHTTPServer) -> None:
        self.url = f"http://127.0.0.1:{server.server_address[1]}"
        self.person = {"sub": "1", "name": "Ada", "email": "ada@example.org"}
        self.key = RSAKey.generate_key(2048, {"kid": "k", "use": "sig"})
        self.nonce = ""

    def metadata(self) -> dict[str, Any]:
        names = {"authorization": "authorize", "token": "token", "userinfo": "userinfo"}
        return {
            "issuer": self.url,
            "jwks_uri": f"{self.url}/jwks",
            **{f"{name}_endpoint": f"{self.url}/{path}" for name, path in names.items()},
            "response_types_supported": ["code"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": ["RS256"],
        }

    def token(self) -> dict[str, Any]:
        now = int(time.time())
        claims = {"iss": self.url, "aud": CLIENT, "iat": now, "exp": now + 600}
        claims |= {"nonce": self.nonce, **self.person}
        signed = jwt.encode({"alg": "RS256", "kid": "k"}, claims, self.key)
        return {"id_token": signed, "access_token": "a", "token_type": "Bearer", "expires_in": 600}


@contextlib.contextmanager
def provider() -> Iterator[Provider]:
    """A provider that answers at 127.0.0.1."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            address = urlparse(self.path)
            if address.path == "/authorize":
                query = {name: values[0] for name, values in parse_qs(address.query).items()}
                found.nonce = query.get("nonce", "")
                answer = urlencode({"code": "c", "state": query["state"]})
                self.send_response(302)
                self.send_header("Location", f"{query['redirect_uri']}?{answer}")
                self.end_headers()
                return
            pages = {
                "/.well-known/openid-configuration": found.metadata,
                "/jwks": lambda: {"keys": [found.key.as_dict(private=False)]},
                "/userinfo": lambda: found.person,
            }
            self.answer(pages[address.path]())

        def do_POST(self) -> None:
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.answer(found.token())

        def answer(self, content: dict[str, Any]) -> None:
            body = json.dumps(content).encode()
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        found = Provider(server)
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield found
        finally:
            server.shutdown()
