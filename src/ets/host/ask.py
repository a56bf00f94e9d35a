"""Asking a service of this machine whether it answers: one short question, no retry."""

from __future__ import annotations

import http.client
import socket

from ets.errors import HostError


def tcp(address: str, port: int, *, timeout: float = 2.0) -> str:
    """Connect and close. Returns what was seen; raises HostError when nobody accepts."""
    try:
        with socket.create_connection((address, port), timeout):
            return "accepts connections"
    except OSError as error:
        raise HostError(f"{address}:{port}: {_said(error)}") from error


def unix(path: str, *, timeout: float = 2.0) -> str:
    """Connect to a local socket and close. Returns what was seen; raises HostError."""
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(timeout)
            connection.connect(path)
            return "accepts connections"
    except OSError as error:
        raise HostError(f"{path}: {_said(error)}") from error


def http_get(address: str, port: int, path: str, *, expect: int, timeout: float = 5.0) -> str:
    """GET ``path``. Returns the status as text; raises HostError when it is not ``expect``."""
    connection = http.client.HTTPConnection(address, port, timeout=timeout)
    try:
        connection.request("GET", path, headers={"Host": address, "User-Agent": "ets-verify"})
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        raise HostError(f"http://{address}:{port}{path}: {_said(error)}") from error
    finally:
        connection.close()
    if status != expect:
        raise HostError(f"http://{address}:{port}{path} answered {status}, not {expect}")
    return f"answers {status}"


def _said(error: Exception) -> str:
    strerror = error.strerror if isinstance(error, OSError) else None
    return strerror or str(error) or type(error).__name__
