#!/usr/bin/env python3
"""`machine run -t`: a real terminal in the guest, and ours given back on every way out."""
import fcntl
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time

import smolvm


class TerminalTest(smolvm.MachineTest):
    def setUp(self):
        super().setUp()
        self.ours, self.theirs = pty.openpty()
        self.addCleanup(os.close, self.ours)
        self.addCleanup(os.close, self.theirs)
        self.resize(33, 101)
        self.before = termios.tcgetattr(self.theirs)
        self.text = b""

    def resize(self, rows, columns):
        fcntl.ioctl(self.ours, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))

    def start(self, *words, options=()):
        self.process = self.start_machine(*words, options=["-i", "-t", *options], stdin=self.theirs, stdout=self.theirs,
                                          stderr=self.theirs, start_new_session=True,
                                          preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
        return self.process

    def read_until(self, wanted, seconds=smolvm.LIMIT):
        deadline = time.monotonic() + seconds
        while wanted not in self.text:
            ended = self.process.poll() is not None or time.monotonic() > deadline
            if select.select([self.ours], [], [], 0.2)[0]:
                self.text += os.read(self.ours, 65536)
            elif ended:
                self.fail(f"{wanted!r} never came: {self.text!r}")

    def drain(self):
        while select.select([self.ours], [], [], 0.2)[0]:
            self.text += os.read(self.ours, 65536)

    def is_raw(self):
        return not termios.tcgetattr(self.theirs)[3] & (termios.ICANON | termios.ECHO)

    def end(self, process):
        """Waits while reading, so that a full terminal does not hold the program."""
        deadline = time.monotonic() + smolvm.LIMIT
        while process.poll() is None and time.monotonic() < deadline:
            if select.select([self.ours], [], [], 0.05)[0]:
                self.text += os.read(self.ours, 65536)
        self.assertIsNotNone(process.poll(), self.text)
        self.drain()
        self.assertEqual(termios.tcgetattr(self.theirs), self.before, "the terminal was not restored")
        return process.returncode

    def test_size_typing_and_the_end(self):
        process = self.start("sh", "-c", "stty size; echo ready; read x; stty size; echo got $x; exit 4")
        self.read_until(b"ready")
        self.assertTrue(self.is_raw())
        self.resize(44, 77)
        os.killpg(process.pid, signal.SIGWINCH)
        time.sleep(0.5)
        os.write(self.ours, b"word\r")
        self.assertEqual(self.end(process), 4)
        self.assertEqual(self.text.replace(b"\r", b""), b"33 101\nready\nword\n44 77\ngot word\n")

    def test_control_c_goes_to_the_guest(self):
        process = self.start("sh", "-c", "trap 'echo caught; exit 8' INT; echo ready; while :; do sleep 0.1; done")
        self.read_until(b"ready")
        os.write(self.ours, b"\x03")
        self.assertEqual(self.end(process), 8)
        self.assertIn(b"caught", self.text)

    def test_a_shell_works(self):
        process = self.start("sh")
        self.read_until(b"# ")
        os.write(self.ours, b"echo $((6*7)); tty\r")
        self.read_until(b"/dev/pts/0")
        self.assertIn(b"\r\n42\r\n", self.text)
        os.write(self.ours, b"exit 3\r")
        self.assertEqual(self.end(process), 3)

    def test_restored_after_sigterm(self):
        process = self.start("sh", "-c", "echo ready; exec sleep 1000")
        self.read_until(b"ready")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(self.end(process), 128 + signal.SIGTERM)

    def test_restored_after_a_timeout(self):
        process = self.start("sh", "-c", "echo ready; exec sleep 1000", options=["--timeout", "4s"])
        self.read_until(b"ready")
        self.assertEqual(self.end(process), 124)

    def test_restored_after_a_panic(self):
        # It waits for a word: what a program wrote in the moment of a panic may die with the kernel.
        process = self.start("sh", "-c", "echo ready; read x; echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger; sleep 100")
        self.read_until(b"ready")
        os.write(self.ours, b"go\r")
        self.assertEqual(self.end(process), 1)
        self.assertIn(b"panic", self.text.lower())

    def test_restored_when_the_monitor_dies(self):
        process = self.start("sh", "-c", "echo ready; exec sleep 1000")
        self.read_until(b"ready")
        for pid in smolvm.processes_with(self.mark):
            if pid != process.pid:
                os.kill(pid, signal.SIGKILL)
        self.assertEqual(self.end(process), 1)

    def test_the_terminals_errors_are_the_guests_too(self):
        process = self.start("sh", "-c", "echo oops >&2; test -t 0 && test -t 1 && test -t 2 && echo all")
        self.assertEqual(self.end(process), 0)
        self.assertIn(b"oops\r\nall\r\n", self.text)


if __name__ == "__main__":
    smolvm.main()
