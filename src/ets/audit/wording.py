"""What differences are called, and how much harm they do: the audit's words, in one place. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

#: what an admin calls a thing of this kind
NOUNS: Mapping[str, str] = {
    "alternative": "alternative", "certificate": "certificate", "cmdline": "kernel parameter",
    "cron": "cron line", "group": "group", "mount": "mount", "nft": "firewall",
    "package": "package", "printer": "printer", "share": "share", "socket": "port",
    "sysctl": "kernel setting", "timer": "timer", "unit": "unit", "user": "user",
}  # fmt: skip

#: how it is said that a thing is there
_THERE: Mapping[str, str] = {"socket": "open", "mount": "mounted"}

#: kind and attribute → predicate; {} is the value
_SAID: Mapping[tuple[str, str], str] = {
    ("alternative", "program"): "stands for {}",
    ("alternative", "chosen"): "is chosen {}",
    ("cmdline", "release"): "is {}",
    ("cmdline", "value"): "is {}",
    ("cron", "from"): "stands in {}",
    ("mount", "options"): "is mounted {}",
    ("mount", "type"): "is {}",
    ("mount", "from"): "is of {}",
    ("socket", "program"): "belongs to {}",
    ("sysctl", "value"): "is {}",
    ("timer", "when"): "is due {}",
    ("timer", "calls"): "calls {}",
    ("unit", "enabled"): "is {}",
    ("user", "group"): "has primary group {}",
    ("package", "state"): "is {}",
    ("certificate", "until"): "is valid until {}",
}  # fmt: skip

#: kind and attribute → value → predicate, of what a person sees as one or the other; "" is for
#: every other value, and for none
_FLAGS: Mapping[tuple[str, str], Mapping[str, str]] = {
    ("package", "held"): {"yes": "is held back", "": "is not held back"},
    ("printer", "accepts jobs"): {"no": "rejects jobs", "": "accepts jobs"},
    ("printer", "stopped"): {"yes": "is stopped", "": "is not stopped"},
    ("printer", "default"): {"yes": "is the default", "": "is not the default"},
    ("printer", "shared"): {"Yes": "is shared", "": "is not shared"},
    ("share", "read only"): {"No": "is writable", "": "is read-only"},
    ("share", "guest ok"): {"Yes": "is open to guests", "": "is not open to guests"},
    ("share", "browseable"): {"No": "is hidden", "": "is shown to all"},
    ("unit", "runs"): {"yes": "runs", "failed": "has failed", "": "does not run"},
}

_HARM: Mapping[str, int] = {
    "user": 80, "share": 80, "group": 75, "nft": 75, "printer": 70, "unit": 70, "mount": 70,
    "socket": 65, "package": 60, "certificate": 60, "cron": 50, "cmdline": 45, "sysctl": 45,
    "timer": 45, "alternative": 35,
}  # fmt: skip
_WORSE: Mapping[tuple[str, str], int] = {
    ("user", "uid"): 85, ("user", "password"): 85, ("group", "gid"): 80,
    ("share", "read only"): 90, ("share", "guest ok"): 90, ("unit", "runs"): 75,
    ("user", "comment"): 20, ("printer", "description"): 30, ("printer", "location"): 30,
    ("alternative", "chosen"): 20, ("nft", "place"): 60,
}  # fmt: skip
_GUARDED = ("/etc/sudoers", "/etc/pam.d", "/etc/ssh/", "/etc/security", "/root/", "/etc/polkit-1")
_PROGRAMS = ("/usr/bin/", "/usr/sbin/", "/usr/lib/", "/usr/local/", "/usr/libexec/")


def thing(kind: str, subject: str) -> str:
    """The thing itself."""
    if (kind, subject) == ("cmdline", "kernel"):
        return "the running kernel"
    return f"{NOUNS.get(kind, kind)} {subject}"


def listed(names: Sequence[str]) -> str:
    """*alpha*, *alpha and beta*, *alpha, beta and gamma*."""
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def presence(name: str, kind: str, there: Sequence[str], without: Sequence[str], first: str) -> str:
    """That something is missing, or is where it is not elsewhere. Of two servers the ``first`` is
    taken for the one that is right, of more the greater number."""
    missing = len(without) < len(there) or (len(without) == len(there) and first in there)
    word = _THERE.get(kind)
    if missing:
        return f"{name} is {f'not {word}' if word else 'missing'} on {listed(without)}"
    return f"{name} is {f'{word} ' if word else ''}on {listed(there)} only"


def difference(
    name: str, kind: str, attribute: str, groups: Mapping[str | None, Sequence[str]], first: str
) -> str:
    """How servers differ in one attribute; ``groups``: value → the servers that have it."""
    flags = _FLAGS.get((kind, attribute))
    if (kind, attribute) == ("user", "password"):
        return f"{name} {_password(groups, first)}"
    if flags is not None:
        said: dict[str | None, list[str]] = {}
        for value, servers in groups.items():
            said.setdefault(flags.get(value or "", flags[""]), []).extend(servers)
        if len(said) > 1:
            return f"{name} {_odd(said, first)}"
    if attribute == "fingerprint":
        return f"{name} is another one on {apart(groups, first)}"
    template = _SAID.get((kind, attribute), f"has {attribute} {{}}")
    told = [f"{_short(value)} on {listed(servers)}" for value, servers in groups.items()]
    return f"{name} {template.replace('{}', listed(told))}"


def harm(kind: str, attribute: str | None, values: Sequence[str | None]) -> int:
    """From 0 to 100."""
    if kind == "user" and ("empty" in values or (attribute == "uid" and "0" in values)):
        return 100
    worse = _WORSE.get((kind, attribute)) if attribute is not None else None
    return worse if worse is not None else _HARM.get(kind, 40)


def file_harm(path: str, *, special: bool) -> int:
    """Of a path; ``special``: it gives, or gave, somebody else's rights."""
    if special:
        return 85
    if path.startswith(_GUARDED):
        return 80
    return 55 if path.startswith(_PROGRAMS) else 40


def _password(groups: Mapping[str | None, Sequence[str]], first: str) -> str:
    words = {"set": "has a password", "empty": "has an EMPTY password", "": "has no password"}
    said: dict[str, list[str]] = {}
    for value, servers in groups.items():
        kind = (value or "").split(" ")[0].rstrip(",")
        said.setdefault(words.get(kind, "has a locked password"), []).extend(servers)
    if len(said) > 1:
        return listed([f"{words} on {listed(servers)}" for words, servers in said.items()])
    return f"has another password on {apart(groups, first)}"


def odd(groups: Mapping[str | None, Sequence[str]], first: str) -> tuple[str, ...]:
    """The servers that are probably wrong: those outside the greatest group of three or more."""
    sizes = sorted(len(servers) for servers in groups.values())
    if sum(sizes) < 3 or sizes[-1] == sizes[-2]:
        return ()
    return tuple(sorted(s for servers in smaller(groups, first) for s in servers))


def apart(groups: Mapping[str | None, Sequence[str]], first: str) -> str:
    """*beta than on alpha*: the smaller part first."""
    odd = [s for servers in smaller(groups, first) for s in servers]
    rest = [s for servers in groups.values() for s in servers if s not in odd]
    return f"{listed(odd)} than on {listed(rest)}"


def smaller(groups: Mapping[str | None, Sequence[str]], first: str) -> list[Sequence[str]]:
    """All groups of servers but the greatest; of equal ones that with ``first`` counts more."""
    by_size = sorted(groups.values(), key=lambda servers: (-len(servers), first not in servers))
    return by_size[1:]


def _odd(said: Mapping[str | None, Sequence[str]], first: str) -> str:
    odd = smaller(said, first)
    told = [f"{words} on {listed(servers)}" for words, servers in said.items() if servers in odd]
    return listed(told) + (" only" if len(said) == 2 and " not " not in told[0] else "")


def _short(value: str | None) -> str:
    if value is None:
        return "none"
    return value if len(value) <= 90 else f"{value[:87]}…"
