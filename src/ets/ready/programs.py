"""Programs that somebody else could change: world-writable files on PATH and in /etc, SUID files
and capabilities outside packages."""

from __future__ import annotations

from collections.abc import Iterator

from ets.host.transport import Host
from ets.ready._ask import answers, script
from ets.ready.finding import Facts, Finding
from ets.site.model import Server, Site

NAME = "programs"

# /tmp and the like are sticky: what lies there is its owner's.
_WRITABLE = r"""
for d in /usr/local/sbin /usr/local/bin /usr/sbin /usr/bin /sbin /bin /opt/*/bin /opt/*/sbin; do
  d=$(readlink -f "$d"); [ -d "$d" ] && find "$d" -xdev ! -type l \
    \( -perm -0002 ! -perm -1000 -o ! -user root -perm -0200 -type f ! -perm /6000 \) \
    -printf '%m %u %y %p\n'
done | sort -u
find /etc /usr/lib/systemd /var/spool/cron -xdev ! -type l -perm -0002 ! -perm -1000 \
  -printf '%m %u %y %p\n'; true
"""
# On local file systems alone; dpkg may know a file by its name from before /usr was merged.
_PRIVILEGED = r"""
mounts=$(findmnt -rn -o TARGET,FSTYPE,OPTIONS | while read -r t f o; do
  case ",$o," in *,nosuid,*) continue;; esac
  case "$f" in ext?|xfs|btrfs|zfs|overlay|f2fs|bcachefs) printf '%b\n' "$t";; esac; done)
echo "$mounts" | sort -u | while read -r m; do
  ionice -c 3 find "$m" -xdev \( -path /var/lib/docker -o -path /var/lib/containers \
    -o -path /var/lib/machines -o -path /var/lib/lxc -o -path /srv/ltsp -o -path /opt/ltsp \) \
    -prune -o -type f -perm /6000 -printf '%m %u %g %p\n'
done | sort -u | while read -r mode user group path; do
  case "$path" in /usr/*) other=${path#/usr};; *) other=/usr$path;; esac
  owner=$(dpkg-query -S "$path" || dpkg-query -S "$other" || echo -)
  echo "$mode $user $group ${owner%%:*} $path"
done
"""
_CAPABILITIES = r"""
command -v getcap >/dev/null || exit 127
getcap -r /usr /opt /home /srv/ /var/lib /root | while read -r path caps; do
  case "$path" in /srv/ltsp/*) continue;; /usr/*) other=${path#/usr};; *) other=$path;; esac
  owner=$(dpkg-query -S "$path" || dpkg-query -S "$other" || echo -)
  echo "${owner%%:*} $caps $path"
done
"""
DEATH = "whoever may change it becomes root here, and on every server that is cloned from here"


def ask(host: Host, site: Site | None, server: Server | None) -> Facts:
    """Files with too many rights, and the packages that they came with."""
    return answers(
        host,
        {
            "writable": script(_WRITABLE),
            "privileged": script(_PRIVILEGED),
            "capabilities": script(_CAPABILITIES),
        },
        deadline=600,
    )


def judge(facts: Facts, site: Site | None, server: Server | None) -> Iterator[Finding]:
    """Each file by itself: each needs a decision."""
    for line in facts.get("writable", "").splitlines():
        mode, user, _, path = line.split(" ", 3)
        if int(mode, 8) & 0o002:
            yield Finding(
                "critical",
                path,
                f"can be changed by everybody (mode {mode})",
                DEATH,
                f"chmod o-w {path}; look whether it was changed: dpkg --verify",
            )
        else:
            yield Finding(
                "warning",
                path,
                f"lies on root's PATH and can be changed by {user}",
                DEATH,
                f"chown root:root {path}",
            )
    for line in facts.get("privileged", "").splitlines():
        mode, user, group, package, path = line.split(" ", 4)
        if package == "-":
            suid = int(mode, 8) & 0o4000
            yield Finding(
                "critical" if suid and user == "root" else "warning",
                path,
                f"runs as {user if suid else f'group {group}'} whoever starts it (mode {mode}), "
                "and no package brought it",
                DEATH,
                f"chmod {'u' if suid else 'g'}-s {path}, unless you know what it is for",
            )
    for line in facts.get("capabilities", "").splitlines():
        package, capabilities, path = line.split(" ", 2)
        if package == "-":
            yield Finding(
                "warning",
                path,
                f"may do what only root may ({capabilities}), and no package brought it",
                DEATH,
                f"setcap -r {path}, unless you know what it is for",
            )
