"""What the daemons' units have in common."""

from __future__ import annotations

#: A drop-in that starts a daemon again whenever it ends: after a crash, and when it came up before
#: the address that it binds was there.
LASTING = b"""\
[Unit]
Wants=network-online.target
After=network-online.target
StartLimitIntervalSec=0

[Service]
Restart=always
RestartSec=500ms
"""
