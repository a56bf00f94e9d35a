"""One program on every console: all show what it prints, any may answer, none can hold it up."""

from __future__ import annotations

import contextlib
import os
import select
import termios
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ets.clone import consoles

ASK = 'printf "name? "; read name; echo "hello $name"; exit 7'


class Person:
    """Somebody at the far end of a console: a terminal whose other side is the console."""

    def __init__(self) -> None:
        self.end, self.line = os.openpty()
        self.path = os.ttyname(self.line)
        self.seen = b""

    def reads(self, text: bytes, seconds: float = 10) -> bool:
        """Does ``text`` appear in time?"""
        end = time.monotonic() + seconds
        while text not in self.seen and time.monotonic() < end:
            ready, _, _ = select.select([self.end], [], [], 0.1)
            if ready:
                with contextlib.suppress(OSError):
                    self.seen += os.read(self.end, 65536)
        return text in self.seen

    def types(self, keys: bytes) -> None:
        os.write(self.end, keys)

    def leaves(self) -> None:
        for file in (self.end, self.line):
            with contextlib.suppress(OSError):
                os.close(file)


@pytest.fixture
def people() -> Iterator[tuple[Person, Person]]:
    pair = Person(), Person()
    yield pair
    for person in pair:
        person.leaves()


class Running:
    """``consoles.run`` in a thread."""

    def __init__(self, script: str, *paths: str, again: float = 0.5) -> None:
        self.status: int | None = None
        self._thread = threading.Thread(target=self._run, args=(script, paths, again), daemon=True)
        self._thread.start()

    def _run(self, script: str, paths: tuple[str, ...], again: float) -> None:
        self.status = consoles.run(["/bin/sh", "-c", script], paths, again)

    def end(self) -> int | None:
        self._thread.join(15)
        return self.status


def test_everybody_sees_it_and_anybody_may_answer(people: tuple[Person, Person]) -> None:
    screen, serial = people
    running = Running(ASK, screen.path, serial.path)
    assert screen.reads(b"name? ")
    assert serial.reads(b"name? ")
    serial.types(b"ada\r")
    for person in people:
        assert person.reads(b"hello ada\r\n")
        assert person.reads(b"ended with status 7")
    assert running.end() == 7


def test_who_presses_enter_starts_it_again_at_once(people: tuple[Person, Person]) -> None:
    screen, _ = people
    running = Running("exit 3", screen.path, again=60)
    assert screen.reads(b"ended with status 3")
    screen.types(b"\r")
    assert running.end() == 3


def test_after_a_success_nothing_is_asked(people: tuple[Person, Person]) -> None:
    screen, _ = people
    assert Running("echo done", screen.path, again=0.1).end() == 0
    assert screen.reads(b"done")
    assert not screen.reads(b"ended with", 0.2)


def test_a_shell_can_be_had_and_left(
    people: tuple[Person, Person], monkeypatch: pytest.MonkeyPatch
) -> None:
    screen, serial = people
    monkeypatch.setattr(consoles, "SHELL", ("/bin/sh", "-c", "echo welcome; read line"))
    running = Running("exit 1", screen.path, serial.path, again=2)
    assert screen.reads(b"s gives a shell")
    screen.types(b"s")
    assert serial.reads(b"welcome")
    screen.types(b"\r")
    assert running.end() == 1


def test_a_console_that_cannot_be_opened_or_is_held_does_not_matter(
    people: tuple[Person, Person],
) -> None:
    screen, held = people
    # More than any terminal buffers, and nobody reads the second console.
    script = (
        "for i in $(seq 3000); do echo 0123456789012345678901234567890123456789; done; echo end"
    )
    running = Running(script, "/dev/no-such-console", screen.path, held.path)
    assert screen.reads(b"end\r\n")
    assert running.end() == 0


def test_a_program_that_is_missing_is_named(people: tuple[Person, Person]) -> None:
    screen, _ = people
    with consoles.opened([screen.path]) as opened:
        assert consoles.play(["/no/such/program"], opened) == 127
    assert screen.reads(b"/no/such/program: No such file")


@pytest.mark.parametrize(
    ("active", "found"),
    [
        ("tty0 ttyS0\n", ("/dev/tty1", "/dev/ttyS0")),
        ("ttyS0 tty0 tty1\n", ("/dev/ttyS0", "/dev/tty1")),
        ("", ("/dev/console",)),
    ],
)
def test_the_kernels_consoles(active: str, found: tuple[str, ...]) -> None:
    assert consoles.devices(active) == found


def test_what_the_console_was_like_comes_back(
    people: tuple[Person, Person], tmp_path: Path
) -> None:
    screen, _ = people
    before = termios.tcgetattr(screen.line)
    (tmp_path / "no-terminal").touch()
    with consoles.opened([screen.path, str(tmp_path / "no-terminal")]):
        assert termios.tcgetattr(screen.line) != before
    assert termios.tcgetattr(screen.line) == before
