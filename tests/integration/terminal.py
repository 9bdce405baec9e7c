"""A pseudo-terminal for a program under test: `ours` is the user's end, `theirs` the program's. What the program wrote is in `text`."""
import fcntl
import os
import pty
import select
import struct
import termios
import time

import smolvm

MARK = b"\0the end\0"


class Terminal:
    """For test cases; `process` is the program, once it runs."""

    def open_terminal(self):
        self.ours, self.theirs = pty.openpty()
        self.addCleanup(os.close, self.ours)
        self.addCleanup(os.close, self.theirs)
        self.resize(33, 101)
        self.before = termios.tcgetattr(self.theirs)
        self.text = b""

    def on_terminal(self):
        """Arguments of Popen."""
        return {"stdin": self.theirs, "stdout": self.theirs, "stderr": self.theirs, "start_new_session": True,
                "preexec_fn": lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0)}

    def resize(self, rows, columns):
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def is_raw(self):
        return not termios.tcgetattr(self.theirs)[3] & (termios.ICANON | termios.ECHO)

    def read_until(self, wanted):
        deadline = time.monotonic() + smolvm.LIMIT
        while wanted not in self.text:
            ended = self.process.poll() is not None or time.monotonic() > deadline
            if select.select([self.ours], [], [], 0.2)[0]:
                self.text += os.read(self.ours, 65536)
            elif ended:
                self.fail(f"{wanted!r} never came: {self.text!r}")

    def take_what_is_there(self):
        while select.select([self.ours], [], [], 0)[0]:
            self.text += os.read(self.ours, 65536)

    def end(self):
        """The exit status. Waits while reading, so that a full terminal does not hold the program; what it wrote last is read, too."""
        deadline = time.monotonic() + smolvm.LIMIT
        while self.process.poll() is None and time.monotonic() < deadline:
            if select.select([self.ours], [], [], 0.05)[0]:
                self.text += os.read(self.ours, 65536)
        self.assertIsNotNone(self.process.poll(), self.text)
        self.take_what_is_there()
        # What the program wrote comes before a mark of ours.
        attributes = termios.tcgetattr(self.theirs)
        os.write(self.theirs, MARK)
        while MARK not in self.text and time.monotonic() < deadline:
            if select.select([self.ours], [], [], 0.05)[0]:
                self.text += os.read(self.ours, 65536)
        self.assertIn(MARK, self.text)
        self.text = self.text[:self.text.index(MARK)]
        self.assertEqual(attributes, self.before, "the terminal was not restored")
        return self.process.returncode
