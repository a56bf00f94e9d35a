"""Makes a copied tree a server of its own: what ``ets.identity`` says is different on each server
is written here, and what must not be copied is removed.

Invariant: afterwards nothing in the tree proves to be, or answers for, the old server: no key, no
address, no name of it stands where the table says "different". The tree's first start already
runs under its own configuration, for every file that the services ask for is in its place. May be
run again on the same tree, and is, after an interruption.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ets import identity, paths, services
from ets.clone import disktext, machine_identity, names, network, samba
from ets.clone.cards import cards
from ets.clone.disks import Filesystem
from ets.clone.finish import UNIT, UNIT_FILE, UNIT_LINK
from ets.clone.trees import Tree
from ets.errors import CloneError
from ets.site.load import parse
from ets.site.model import Role, Server, Site

__all__ = ["WRITERS", "Newcomer", "cards", "rewrite"]


@dataclass(frozen=True, slots=True)
class Newcomer:
    """Who the tree becomes: a server of its own site file. ``filesystems`` are those of its disks
    (none: it has no disks of its own), ``nics`` the MAC of its card on each network (lower case,
    colons), ``certificate``, ``key`` and ``ca`` PEM."""

    server: str
    filesystems: Sequence[Filesystem]
    nics: Mapping[Role, str]
    certificate: bytes
    key: bytes = field(repr=False)
    ca: bytes = b""


@dataclass(frozen=True, slots=True)
class Job:
    """What every writer is told."""

    tree: Tree
    site: Site
    old: Server
    new: Server
    newcomer: Newcomer


Writer = Callable[[Job], Iterator[str]]


def rewrite(root: Path, new: Newcomer, *, old: str) -> tuple[str, ...]:
    """Make the tree at ``root``, a copy of the server ``old`` that is not running, the server
    ``new.server``. Returns what was done and what is left for a person, in words.

    Raises CloneError when the tree is no copy of a server of this site, SiteError, HostError.
    """
    tree = Tree(root)
    job = _job(tree, new, old)
    _forget(tree)
    said: list[str] = []
    for way in identity.WAYS:
        if way in WRITERS:
            said += WRITERS[way](job)
    said += _mentions(job)
    return tuple(said)


def _job(tree: Tree, new: Newcomer, old: str) -> Job:
    content = tree.read(str(paths.SITE_FILE))
    if content is None:
        raise CloneError(
            f"there is no {paths.SITE_FILE} in {tree.root}: it is no copy of a server",
            hint="copy it again; a copy that was interrupted goes on where it was",
        )
    site = parse(content, str(tree.root) + str(paths.SITE_FILE))
    for name in (old, new.server):
        if name not in {server.name for server in site.servers}:
            known = ", ".join(server.name for server in site.servers)
            raise CloneError(
                f"the copied site file knows no server {name!r}",
                hint=f"it knows {known}; add the server to the site file and apply it first",
            )
    if old == new.server:
        raise CloneError(f"a copy of {old} cannot become {old}", hint="give it another name")
    return Job(tree, site, site.server(old), site.server(new.server), new)


def _forget(tree: Tree) -> None:
    """Remove what an older copy, or one made by other means, still has of the old server."""
    for row in identity.ROWS:
        if identity.WAYS[row.how].copied or _of_this_run(row):
            continue
        found = [path for pattern in row.paths for path in tree.glob(pattern)]
        # the longest first: a directory when all in it is gone
        for path in sorted(found, reverse=True):
            if identity.find(path) is row and not (row.folders and tree.is_directory(path)):
                tree.remove(path)


def _of_this_run(row: identity.Row) -> bool:
    """Paths where the kernel's own file systems may be mounted, or that are in use meanwhile."""
    kept = ("/dev/", "/proc/", "/sys/", "/run/", "/boot/efi/", "/**/", f"{paths.JOIN}/")
    return any(path.startswith(kept) for path in row.paths)


# -- one writer for each way ------------------------------------------------------------------


def _site_file(job: Job) -> Iterator[str]:
    tree, new = job.tree, job.new
    tree.write("/etc/hostname", f"{new.name}\n".encode())
    tree.write(str(paths.SERVER_NAME), f"{new.name}\n".encode())
    wanted = services.desired(job.site, new)
    for directory in wanted.directories:
        tree.make_directory(
            directory.path, mode=directory.mode, owner=directory.owner, group=directory.group
        )
    for file in wanted.files:
        tree.write(file.path, file.content, mode=file.mode, owner=file.owner, group=file.group)
    yield f"it is {new.name}; {len(wanted.files)} files written from the site file"


def _names(job: Job) -> Iterator[str]:
    changed = []
    for path in job.tree.of_way("names"):
        if path == "/etc/hosts":
            done = job.tree.edit(path, lambda text: names.hosts(text, job.site, job.old, job.new))
        else:
            done = job.tree.edit(path, lambda text: names.rename(text, job.old.name, job.new.name))
        changed += [path] if done else []
    if changed:
        yield f"renamed from {job.old.name} in {', '.join(changed)}"


def _addresses(job: Job) -> Iterator[str]:
    tree = job.tree
    settings = [path for way in ("addresses", "cards") for path in tree.of_way(way)]
    texts = {path: tree.text(path) for path in settings}
    change = network.Change(job.site, job.old, job.new, dict(job.newcomer.nics))
    change = network.Change(
        job.site, job.old, job.new, change.nics, network.learn(texts.values(), change)
    )
    changed = []
    for path in settings:
        if tree.edit(path, lambda text: network.readdress(text, change)):
            changed.append(path)
        for left in network.strangers(tree.text(path), change):
            yield f"{path} still has {left} of {job.old.name}: give {job.new.name} its own"
    if changed:
        yield f"addresses and cards changed in {', '.join(changed)}"


def _cards(job: Job) -> Iterator[str]:
    tree = job.tree
    settings = [path for way in ("addresses", "cards") for path in tree.of_way(way)]
    texts = {path: tree.text(path) for path in settings}
    nics = dict(job.newcomer.nics)
    change = network.Change(job.site, job.old, job.new, nics)
    for path, content in network.links(texts, change).items():
        tree.write(path, content.encode())
    for role, mac in sorted(nics.items()):
        yield f"{mac} is the card on the {role} network ({job.site.networks[role].interface})"
    for role in sorted(set(job.new.addresses) - set(nics)):
        yield f"no card is known for the {role} network: plug one in and name it there"


def _certificate(job: Job) -> Iterator[str]:
    tree, new = job.tree, job.newcomer
    there = tree.read(str(paths.CA_CERT))
    if there is not None and new.ca and there.strip() != new.ca.strip():
        raise CloneError(
            "the certificate was issued by another authority than the copied server's",
            hint="open the join again on the server that is copied",
        )
    tree.make_directory(str(paths.PKI), mode=0o700)
    contents = {paths.SERVER_KEY: new.key, paths.SERVER_CERT: new.certificate}
    for path, content in (
        contents | ({} if there or not new.ca else {paths.CA_CERT: new.ca})
    ).items():
        tree.write(str(path), content, mode=0o600)
    yield f"a key and certificate of its own for {new.server}"


def _disks(job: Job) -> Iterator[str]:
    tree = job.tree
    notes: list[str] = []

    def noting(change: Callable[[str], tuple[str, tuple[str, ...]]]) -> Callable[[str], str]:
        def changed(text: str) -> str:
            result, said = change(text)
            notes.extend(said)
            return result

        return changed

    systems = job.newcomer.filesystems
    if tree.read("/etc/fstab") is None and systems:
        tree.write("/etc/fstab", b"")
    tree.edit("/etc/fstab", noting(lambda text: disktext.fstab(text, systems)))
    tree.edit("/etc/crypttab", noting(disktext.crypttab))
    tree.edit("/etc/mdadm/mdadm.conf", disktext.mdadm)
    tree.edit("/var/cache/debconf/config.dat", disktext.debconf)
    if tree.is_directory("/etc/initramfs-tools/conf.d"):
        tree.write("/etc/initramfs-tools/conf.d/resume", disktext.resume().encode())
    yield from notes
    if systems:
        yield "mounts " + ", ".join(f"{each.mount} ({each.type})" for each in systems)


def _by_hand(job: Job) -> Iterator[str]:
    found = job.tree.of_way("by hand")
    for path in found:
        job.tree.remove(path)
    if found:
        yield f"left out, to be set up by hand where it is needed: {', '.join(found)}"


def _first_boot(job: Job) -> Iterator[str]:
    tree = job.tree
    tree.make_directory(str(paths.RUNTIME), mode=0o700)
    tree.write(str(paths.JOINING), f"copied from {job.old.name}\n".encode(), mode=0o600)
    tree.write(UNIT_FILE, UNIT.encode())
    tree.link(UNIT_LINK, UNIT_FILE)
    yield "it enters service at its first start, once it is equal"


def _mentions(job: Job) -> Iterator[str]:
    """Settings that must be equal on all servers, and name the old one all the same."""
    words = [job.old.name, *map(str, job.old.addresses.values())]
    found = [path for path in job.tree.mentioning("/etc", words) if identity.compared(path)]
    found = [path for path in found if not path.startswith((f"{paths.ETC}/", "/etc/alternatives"))]
    if found:
        yield f"these name {job.old.name} and were copied as they are: {', '.join(found[:20])}"


#: by the name of the way, for each way of ``ets.identity`` that writes
WRITERS: Mapping[str, Writer] = {
    "site file": _site_file,
    "names": _names,
    "addresses": _addresses,
    "cards": _cards,
    "machine id": lambda job: machine_identity.machine_id(job.tree),
    "host keys": lambda job: machine_identity.host_keys(job.tree, job.new.name),
    "seed": lambda job: machine_identity.seed(job.tree),
    "certificate": _certificate,
    "disks": _disks,
    "samba": lambda job: samba.carry_over(job.tree, job.old.name, job.new.name),
    "by hand": _by_hand,
    "initiator": lambda job: machine_identity.initiator(job.tree),
    "first boot": _first_boot,
}
