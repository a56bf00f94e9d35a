"""``ets-agent``, the daemon on every server: peers, runtime state, boot scripts, guests, API,
metrics. Nothing that already runs depends on it. May import every room but ``cli``, ``lab``.
"""
