"""Keys that others can read, and certificates that end."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime

from ets.host.transport import Host
from ets.ready._ask import answers, fields, files, script
from ets.ready.finding import Facts, Finding
from ets.site.model import Server, Site

NAME = "keys"

DAY = 86400
SOON = 30 * DAY
#: bits of an RSA key below which it counts as weak (NIST SP 800-131A)
RSA = 2048

_PLACES = "/etc /var/lib/ets /var/lib/samba/private /opt/ets /root/.ssh"
# Private keys by what stands in them, whatever they are called; -r so that links are not followed.
_KEYS = rf"""
find {_PLACES} -xdev -type f -size -64k -perm /0044 -print0 |
  xargs -0 -r grep -l -E -e '^-----BEGIN ([A-Z]+ )*PRIVATE KEY' | while read -r f; do
    stat -c '%a %U %G %n' "$f"; done; true
"""
# The authorities' certificates that Debian brings are links to /usr/share.
_CERTIFICATES = r"""
command -v openssl >/dev/null || exit 127
echo "== now"; date +%s
find /etc /var/lib/ets -xdev -type f -size -64k ! -path '/etc/ssl/certs/ca-certificates.crt' \
  ! -path '/etc/ca-certificates/*' \
  \( -name '*.crt' -o -name '*.pem' -o -name '*.cer' -o -name '*.cert' \) \
  -print0 | xargs -0 -r grep -l -e '^-----BEGIN CERTIFICATE' | while read -r f; do
    echo "== $f"
    openssl x509 -in "$f" -noout -enddate -subject
    openssl x509 -in "$f" -noout -text | grep -E 'Public-Key|Public Key Algorithm'
done
"""
READ = "whoever reads it can be this server, to stations and to its peers, also after it is dead"


def ask(host: Host, site: Site | None, server: Server | None) -> Facts:
    """Modes of files with private keys, and certificates' ends; no key is read out."""
    return answers(
        host, {"keys": script(_KEYS), "certificates": script(_CERTIFICATES)}, deadline=120
    )


def judge(facts: Facts, site: Site | None, server: Server | None) -> Iterator[Finding]:
    """Keys first."""
    for line in facts.get("keys", "").splitlines():
        mode, user, group, path = line.split(" ", 3)
        if int(mode, 8) & 0o004:
            yield Finding(
                "critical",
                path,
                f"holds a private key that everybody on this machine can read (mode {mode})",
                READ,
                f"chmod o= {path}, and make a new key: this one was readable",
            )
        elif group not in ("root", "ssl-cert", user):
            yield Finding(
                "note",
                path,
                f"holds a private key that the group {group} can read (mode {mode})",
                READ,
                f"getent group {group}; chmod g= {path}, if that is too many",
            )
    found = dict(files(facts.get("certificates", "")))
    now = int(found.pop("now", "0"))
    for path, text in found.items():
        yield from _certificate(path, text, now)


def _certificate(path: str, text: str, now: int) -> Iterator[Finding]:
    about = fields(text)
    subject = about.get("subject", "").removeprefix("CN = ") or path
    if "notAfter" in about:
        end = datetime.strptime(about["notAfter"], "%b %d %H:%M:%S %Y GMT").replace(tzinfo=UTC)
        left = end.timestamp() - now
        day = end.date().isoformat()
        if left <= SOON:
            yield Finding(
                "critical" if left <= 0 else "warning",
                path,
                f"the certificate of {subject} {'ended' if left <= 0 else 'ends'} on {day}",
                "all servers have it: every one of them is refused from that day on",
                f"renew it (openssl x509 -in {path} -noout -text says who signed it)",
            )
    bits = text.partition("Public-Key: (")[2].partition(" bit")[0]
    if "rsaEncryption" in text and bits.isdigit() and int(bits) < RSA:
        yield Finding(
            "warning",
            path,
            f"the key of {subject} has {bits} bits; {RSA} are the least today",
            READ,
            "make a new key and certificate",
        )
