"""What tells one machine from another, made anew: ids, keys, seeds."""

from __future__ import annotations

import os
import re
import secrets
import uuid
from collections.abc import Iterator

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from ets.clone.trees import Tree

_SEED = 512
_RSA_BITS = 3072


def machine_id(tree: Tree) -> Iterator[str]:
    """Empty, but there: without the file systemd takes the start for the first one ever and
    resets every unit to its preset (machine-id(5))."""
    tree.write("/etc/machine-id", b"", mode=0o444)
    if tree.is_directory("/var/lib/dbus"):
        tree.link("/var/lib/dbus/machine-id", "/etc/machine-id")
    yield "a machine id of its own at the first start"


def host_keys(tree: Tree, name: str) -> Iterator[str]:
    """The three kinds of keys that sshd looks for by itself."""
    if not tree.is_directory("/etc/ssh"):
        return
    keys: dict[str, rsa.RSAPrivateKey | ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey] = {
        "rsa": rsa.generate_private_key(65537, _RSA_BITS),
        "ecdsa": ec.generate_private_key(ec.SECP256R1()),
        "ed25519": ed25519.Ed25519PrivateKey.generate(),
    }
    for kind, key in keys.items():
        path = f"/etc/ssh/ssh_host_{kind}_key"
        private = key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.OpenSSH,
            serialization.NoEncryption(),
        )
        public = key.public_key().public_bytes(
            serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH
        )
        tree.write(path, private, mode=0o600)
        tree.write(f"{path}.pub", public + f" root@{name}\n".encode())
    yield f"new ssh host keys ({', '.join(keys)})"


def seed(tree: Tree) -> Iterator[str]:
    """What systemd gives the kernel at the start (systemd-random-seed.service(8))."""
    if tree.is_directory("/var/lib/systemd"):
        tree.write("/var/lib/systemd/random-seed", os.urandom(_SEED), mode=0o600)
        yield "a random seed of its own"


def initiator(tree: Tree) -> Iterator[str]:
    """Names at disk arrays, where the old server had one."""
    number = str(uuid.uuid4())
    made = [
        tree.edit(
            "/etc/iscsi/initiatorname.iscsi",
            lambda text: re.sub(
                r"(?m)^(InitiatorName=).*$",
                lambda met: f"{met[1]}iqn.1993-08.org.debian:01:{secrets.token_hex(6)}",
                text,
            ),
        ),
        tree.edit("/etc/nvme/hostid", lambda _: f"{number}\n"),
        tree.edit("/etc/nvme/hostnqn", lambda _: f"nqn.2014-08.org.nvmexpress:uuid:{number}\n"),
    ]
    if tree.read("/etc/hostid") is not None:
        tree.write("/etc/hostid", secrets.token_bytes(4))
        made.append(True)
    if any(made):
        yield "new names for disk arrays (iSCSI, NVMe, host id)"
