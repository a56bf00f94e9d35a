"""Where ETS keeps things on a server. One place, so that services, agent, image store and lab
agree. Pure: nothing here is opened.
"""

from __future__ import annotations

from pathlib import PurePosixPath

ETC = PurePosixPath("/etc/ets")
SITE_FILE = ETC / "site.toml"
SITE_LOCK = ETC / "site.lock"
#: one line, the name of this server: the only thing that tells a server which one it is
SERVER_NAME = ETC / "server"
PKI = ETC / "pki"
CA_CERT = PKI / "ca.crt"
#: only on servers that may take newcomers: whoever has it can make a server of this site
CA_KEY = PKI / "ca.key"
SERVER_CERT = PKI / "server.crt"
SERVER_KEY = PKI / "server.key"
#: 32 random bytes, hex; the same on all servers of a site; authenticates heartbeats
SITE_SECRET = PKI / "site.secret"

STATE = PurePosixPath("/var/lib/ets")
IMAGES = STATE / "images"
RECEIPTS = STATE / "receipts"
JOURNAL = STATE / "journal"
OWNED = STATE / "owned.json"
RUNTIME = STATE / "runtime"
#: digests of files that an audit has read before, with what lstat said of them
AUDIT_CACHE = RUNTIME / "audit.cache"
#: the certificates that are not valid any more, signed by the site's CA (RFC 5280)
CRL = RUNTIME / "site.crl"
#: boot scripts as last rendered, which nginx serves when the agent does not answer
BOOT_SCRIPTS = STATE / "boot"
#: joins that this server has opened, a directory for each name
JOINS = STATE / "joins"
#: on a newcomer: its keys and how to reach the server that it was copied from, until it is done
JOIN = STATE / "join"
#: while it is there, this server is not in service yet
JOINING = RUNTIME / "joining"

RUN = PurePosixPath("/run/ets")
AGENT_SOCKET = RUN / "agent.sock"
KEA_CONFIG = PurePosixPath("/etc/kea/kea-dhcp4.conf")
KEA_SOCKET = PurePosixPath("/run/kea/kea4-ctrl-socket")

#: ETS itself on a server: its Python environment and its command
LIB = PurePosixPath("/opt/ets")
COMMAND = PurePosixPath("/usr/bin/ets")

#: TCP and UDP ports. HTTP is the stations' side (nginx); the agent listens on loopback behind it.
PORT_HTTP = 80
PORT_NBD = 10809
PORT_TFTP = 69
PORT_AGENT_LOCAL = 8470
PORT_AGENT_PEERS = 8471
PORT_HEARTBEAT = 8472
#: the sshd that runs only while a server is copied
PORT_CLONE = 8473
