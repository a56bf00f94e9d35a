"""Kernel settings as they are now (sysctl(8)), without those that the kernel computes from the
hardware, counts, or keeps for each network card."""

from __future__ import annotations

import re

KIND = "sysctl"
ASK = (("sysctl", "--all"),)

_PASSING = re.compile(
    r"""
    abi\..* | crypto\..* | debug\..* | dev\..* | sunrpc\..* | user\.max_.*
  | fs\.(?:aio-nr|aio-max-nr|binfmt_misc\..*|dentry-state|dquot\..*|epoll\..*|fanotify\..*|file-.*
        |inode-.*|inotify\.max_user_watches|mqueue\..*|quota\..*|xfs\..*|nfs\..*|verity\..*)
  | kernel\.(?:acct|auto_msgmni|boot.*|bootloader_.*|cad_pid|cap_last_cap|core_pipe_limit|domainname
        |firmware_config.*|ftrace.*|hostname|hotplug|keys\..*|latencytop|max_lock_depth|modprobe
        |ngroups_max|ns_last_pid|numa_.*|osrelease|ostype|overflow.*|perf_cpu_time_max_percent
        |perf_event_max_.*|pid_max|pty\.nr|pty\.reserve|random\..*|sched_.*|sem_next_id|shm_next_id
        |msg_next_id|spl.*|stack_.*|tainted|threads-max|timer_.*|version|watchdog_cpumask|seccomp\..*
        |usermodehelper\..*|unprivileged_userns_apparmor_policy|apparmor.*|max_rcu_stall.*)
  | net\.(?:core\.(?:bpf_.*|dev_weight.*|flow_limit.*|netdev_rss_key|rps_.*|optmem_max)
        |ipv[46]\.(?:conf|neigh)\.(?!all\.|default\.).*|ipv[46]\..*\.stable_secret
        |ipv4\.(?:tcp_mem|udp_mem|tcp_max_(?:orphans|tw_buckets|syn_backlog)|tcp_[rw]mem
            |tcp_fastopen_key|tcp_available_.*|tcp_allowed_.*|tcp_ehash_entries|inet_peer_.*
            |ipfrag_.*|udp_hash_entries|route\..*|neigh\.default\.gc_.*)
        |ipv6\.(?:route\..*|ip6frag_.*|neigh\.default\.gc_.*)
        |mptcp\..*|netfilter\..*|nf_conntrack_max|bridge\..*|unix\..*|sctp\..*|fib_.*)
  | vm\.(?:admin_reserve_kbytes|compact_memory|drop_caches|hugepages_.*|lowmem_reserve_ratio
        |max_map_count|min_free_kbytes|nr_.*|numa_.*|stat_.*|user_reserve_kbytes
        |percpu_pagelist.*|unprivileged_userfaultfd|watermark_.*|.*_bytes)
    """,
    re.VERBOSE,
)


def parse(text: str) -> dict[str, dict[str, str]]:
    """``value`` of each setting, blanks made one."""
    found = {}
    for line in text.splitlines():
        name, equal, value = line.partition(" =")
        if equal and not _PASSING.fullmatch(name):
            found[name] = {"value": " ".join(value.split())}
    return found
