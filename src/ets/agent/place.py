"""Where an agent runs: its site, its name, its keys, its directories and ports. Read once, read
again on SIGHUP; whatever is missing is named, with what to do.
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass, field, fields
from pathlib import Path

from ets import paths
from ets.errors import AgentError, InputError
from ets.host import pki
from ets.site.load import parse
from ets.site.model import Server, Site


@dataclass(frozen=True, slots=True)
class Ports:
    """The ports of an agent. ``http`` and ``nbd`` are the other daemons', told to stations."""

    local: int = paths.PORT_AGENT_LOCAL
    peers: int = paths.PORT_AGENT_PEERS
    heartbeat: int = paths.PORT_HEARTBEAT
    http: int = paths.PORT_HTTP
    nbd: int = paths.PORT_NBD
    clone: int = paths.PORT_CLONE


@dataclass(frozen=True, slots=True)
class Tree:
    """The files of an agent. ``Tree.below(root)`` is a whole one somewhere else, for tests."""

    site: Path = Path(paths.SITE_FILE)
    name: Path = Path(paths.SERVER_NAME)
    pki: Path = Path(paths.PKI)
    runtime: Path = Path(paths.RUNTIME)
    joins: Path = Path(paths.JOINS)
    crl: Path = Path(paths.CRL)
    boot: Path = Path(paths.BOOT_SCRIPTS)
    images: Path = Path(paths.IMAGES)
    socket: Path = Path(paths.AGENT_SOCKET)
    kea: Path = Path(paths.KEA_SOCKET)
    #: where Kea keeps its leases (``services.dhcp`` says so); only looked at, never read
    leases: Path = Path("/var/lib/kea/kea-leases4.csv")

    @classmethod
    def below(cls, root: Path) -> Tree:
        """The same tree below ``root``."""
        return cls(**{one.name: root / str(one.default).lstrip("/") for one in fields(cls)})


@dataclass(frozen=True, slots=True)
class Place:
    """Everything that an agent is told from outside."""

    site: Site
    me: Server
    secret: bytes = field(repr=False)
    tree: Tree
    ports: Ports

    @property
    def peers(self) -> tuple[Server, ...]:
        """The other servers of the site."""
        return self.site.peers(self.me.name)


def read(tree: Tree, ports: Ports) -> Place:
    """The place that ``tree`` describes. Raises EtsError (a bad site file: SiteError)."""
    try:
        content = tree.site.read_bytes()
    except OSError as error:
        raise AgentError(
            f"cannot read the site file {tree.site}: {error.strerror}",
            hint="copy it from another server of the site, or write one (see examples/)",
        ) from error
    site = parse(content, str(tree.site))
    try:
        name = tree.name.read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise AgentError(
            f"cannot read this server's name from {tree.name}: {error}",
            hint=f"write it there: echo NAME > {tree.name}",
        ) from error
    try:
        me = site.server(name)
    except KeyError as error:
        known = ", ".join(server.name for server in site.servers)
        raise InputError(
            f"this server is called {name!r} in {tree.name}, which {tree.site} does not know",
            hint=f"write one of {known} into {tree.name}, or add the server to the site file",
        ) from error
    return Place(site, me, pki.read_secret(tree.pki / "site.secret"), tree, ports)


def tls(directory: Path, side: ssl._SSLMethod, crl: Path | None = None) -> ssl.SSLContext:
    """Mutual TLS 1.3 under the site's CA, with nobody whose certificate is on the list ``crl``
    (a file that is there and was checked). Raises AgentError when the keys are missing or bad."""
    context = ssl.SSLContext(side)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_verify_locations(directory / "ca.crt")
        context.load_cert_chain(directory / "server.crt", directory / "server.key")
        if crl is not None:
            context.load_verify_locations(crl)
            context.verify_flags |= ssl.VerifyFlags.VERIFY_CRL_CHECK_LEAF
    except (OSError, ssl.SSLError) as error:
        raise AgentError(
            f"cannot use the keys in {directory}: {error}",
            hint="ca.crt, server.crt and server.key must be there, issued by the site's own CA",
        ) from error
    return context
