"""Who may log in, and how: ssh, empty passwords, second roots, passwords that everybody knows."""

from __future__ import annotations

from collections.abc import Iterator

from ets.host.transport import Host
from ets.ready._ask import answers, fields, listed, rows, script
from ets.ready.finding import Facts, Finding
from ets.site.model import Server, Site

NAME = "logins"

# No hash leaves the machine: what is said of a password is empty, locked or set.
_ACCOUNTS = r"""
awk -F: 'function what(hash) { return hash == "" ? "empty" : hash ~ /^[!*]/ ? "locked" : "set" }
  FILENAME == ARGV[1] { shadow[$1] = what($2); next }
  $2 == "x" { state = $1 in shadow ? shadow[$1] : "locked" }
  $2 != "x" { state = what($2) == "set" ? "here" : what($2) }
  { print $1, $3, state, $7 }' \
  /etc/shadow /etc/passwd
"""
# Those who may become root, and daemons' accounts, for at most 20 s; perl is on every Debian.
_GUESS = r"""
use POSIX; alarm 20; $SIG{ALRM} = sub { print "- stopped\n"; exit };
my %may; open(my $g, "<", "/etc/group");
while (<$g>) { chomp; my @f = split /:/;
  if ($f[0] =~ /^(sudo|admin|wheel|root|adm)$/) { $may{$_} = 1 for split /,/, $f[3] // "" } }
my %uid; open(my $u, "<", "/etc/passwd"); while (<$u>) { my @f = split /:/; $uid{$f[0]} = $f[2] }
open(my $s, "<", "/etc/shadow") or exit;
while (<$s>) {
  my ($name, $hash) = split /:/;
  next if $hash !~ /^[\$_.\/0-9A-Za-z]/ or length $hash < 13;
  next unless $may{$name} or ($uid{$name} // 9999) < 1000;
  for my $try ($name, reverse($name)."", "password", "admin", "changeme", "ltsp", "debian", "toor",
               "raspberry", "ubuntu", "123456", $name."123") {
    my $got = crypt($try, $hash);
    if (defined $got and $got eq $hash) { print "$name known\n"; last }
  }
}
"""
_SNMP = r"""
grep -h -E '^[[:space:]]*(ro|rw)community6?[[:space:]]+(public|private)' \
  /etc/snmp/snmpd.conf /etc/snmp/snmpd.conf.d/*; true
"""
_POSTGRES = r"""
grep -H -E '^[[:space:]]*host.*[[:space:]]trust[[:space:]]*$' /etc/postgresql/*/*/pg_hba.conf; true
"""
SAME = "all servers have the same accounts: who gets into one is in all of them"


def ask(host: Host, site: Site | None, server: Server | None) -> Facts:
    """sshd's effective settings, and accounts without their hashes."""
    return answers(
        host,
        {
            "sshd": ["sshd", "-T"],
            "accounts": script(_ACCOUNTS),
            "guessed": ["perl", "-e", _GUESS],
            "snmp": script(_SNMP),
            "postgres": script(_POSTGRES),
        },
    )


def judge(facts: Facts, site: Site | None, server: Server | None) -> Iterator[Finding]:
    """ssh, the accounts, and credentials that came with a program."""
    if facts.get("sshd", "-").strip():
        yield from _ssh(fields(facts.get("sshd", ""), " "))
    else:
        yield Finding(
            "warning",
            "ssh",
            "sshd cannot say who may log in: it has no host key, or its configuration is wrong",
            SAME,
            "sshd -t; ssh-keygen -A",
        )
    yield from _accounts(facts.get("accounts", ""))
    for name, what in rows(facts.get("guessed", ""), 2):
        if what == "known":
            yield Finding(
                "critical",
                name,
                "has a password that everybody tries first",
                SAME,
                f"passwd {name}",
            )
    for row in rows(facts.get("snmp", ""), 2):
        yield Finding(
            "critical" if row[0].startswith("rw") else "warning",
            "snmpd",
            f"lets everybody {'change' if row[0].startswith('rw') else 'read'} it by the "
            f"community '{row[1]}'",
            SAME,
            "set another community in /etc/snmp/snmpd.conf, or use SNMPv3",
        )
    hosts = facts.get("postgres", "").splitlines()
    if hosts:
        yield Finding(
            "critical",
            "postgresql",
            f"asks for no password: {listed(hosts, 2)}",
            SAME,
            "write scram-sha-256 instead of trust in pg_hba.conf",
        )


def _ssh(sshd: dict[str, str]) -> Iterator[Finding]:
    step = "write '{} no' into /etc/ssh/sshd_config.d/ready.conf; systemctl reload ssh"
    passwords = sshd.get("passwordauthentication") == "yes"
    if sshd.get("permitrootlogin") == "yes":
        yield Finding(
            "critical" if passwords else "warning",
            "ssh",
            "root may log in" + (" by password" if passwords else ""),
            SAME,
            "write 'PermitRootLogin prohibit-password' into /etc/ssh/sshd_config.d/ready.conf; "
            "systemctl reload ssh",
        )
    if passwords:
        yield Finding(
            "warning",
            "ssh",
            "passwords are accepted: one that was guessed opens every server",
            SAME,
            "put keys into ~/.ssh/authorized_keys, then " + step.format("PasswordAuthentication"),
        )
    elif sshd.get("kbdinteractiveauthentication") == "yes" and sshd.get("usepam") == "yes":
        yield Finding(
            "warning",
            "ssh",
            "passwords are accepted after all: keyboard-interactive authentication is on",
            SAME,
            step.format("KbdInteractiveAuthentication"),
        )
    if sshd.get("permitemptypasswords") == "yes":
        yield Finding(
            "critical",
            "ssh",
            "accounts without a password may log in",
            SAME,
            step.format("PermitEmptyPasswords"),
        )


def _accounts(text: str) -> Iterator[Finding]:
    for name, uid, state, *shell in rows(text, 3):
        closed = shell and shell[0].endswith(("nologin", "/false", "/sync"))
        if state == "empty" and not closed:
            yield Finding(
                "critical",
                name,
                "has no password: anybody may log in with that name",
                SAME,
                f"passwd {name}, or: passwd --lock {name}",
            )
        elif state == "here":
            yield Finding(
                "critical",
                name,
                "has its password's hash in /etc/passwd, where everybody can read it",
                SAME,
                f"pwconv, then passwd {name}",
            )
        if uid == "0" and name != "root":
            yield Finding(
                "critical",
                name,
                "is root under another name (uid 0)",
                SAME,
                f"usermod --uid NUMBER {name}, unless you made it on purpose",
            )
