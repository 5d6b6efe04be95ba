"""Keys made for one test, and a daemon's list of clients."""

from __future__ import annotations

import json
from pathlib import Path

import zmq

from forecastd.daemon.clients import Entry


class Keyring:
    """A folder of keys. `path` and `public` make those of a name when they are first asked for."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._pairs: dict[str, tuple[str, str]] = {}

    def pair(self, name: str) -> tuple[str, str]:
        """The public and the secret key."""
        if name not in self._pairs:
            public, secret = (key.decode() for key in zmq.curve_keypair())
            self._pairs[name] = public, secret
            file = self.folder / f"{name}.key"
            file.touch(0o600)
            file.write_text(f'name = "{name}"\npublic = "{public}"\nsecret = "{secret}"\n')
        return self._pairs[name]

    def path(self, name: str) -> str:
        """The file of the secret key."""
        self.pair(name)
        return str(self.folder / f"{name}.key")

    def public(self, name: str) -> str:
        return self.pair(name)[0]

    def entry(self, name: str, *series: str, watch: bool = False, producer: str = "") -> Entry:
        return Entry(producer=producer or name, key=self.public(name), series=series, watch=watch)

    def write(self, *entries: Entry) -> str:
        """The entries as a file; its path."""
        file = self.folder / "clients.toml"
        lines = [
            f"[[client]]\nproducer = {json.dumps(entry.producer)}\nkey = '{entry.key}'\n"
            f"series = {json.dumps(entry.series)}\nwatch = {json.dumps(entry.watch)}\n"
            for entry in entries
        ]
        file.write_text("\n".join(lines))
        return str(file)

    def on(self, socket: zmq.SyncSocket, name: str, server: str = "daemon") -> zmq.SyncSocket:
        """Gives a client's socket its keys, before it connects."""
        public, secret = self.pair(name)
        socket.curve_publickey, socket.curve_secretkey = public.encode(), secret.encode()
        socket.curve_serverkey = self.public(server).encode()
        return socket
