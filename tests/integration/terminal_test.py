#!/usr/bin/env python3
"""`machine run -t`: a real terminal in the guest, and ours given back on every way out."""
import os
import signal

import smolvm
import terminal


class TerminalTest(terminal.Terminal, smolvm.MachineTest):
    def setUp(self):
        super().setUp()
        self.open_terminal()

    def start(self, *words, options=()):
        self.process = self.start_machine(*words, options=["-i", "-t", *options], **self.on_terminal())
        return self.process

    def test_size_typing_and_the_end(self):
        process = self.start("sh", "-c", "stty size; echo ready; until [ \"$(stty size)\" = '44 77' ]; do sleep 0.1; done; "
                                         "echo sized; read x; echo got $x; exit 4")
        self.read_until(b"ready")
        self.assertTrue(self.is_raw())
        self.resize(44, 77)
        os.killpg(process.pid, signal.SIGWINCH)
        self.read_until(b"sized")
        os.write(self.ours, b"word\r")
        self.assertEqual(self.end(), 4)
        self.assertEqual(self.text.replace(b"\r", b""), b"33 101\nready\nsized\nword\ngot word\n")

    def test_control_c_goes_to_the_guest(self):
        process = self.start("sh", "-c", "trap 'echo caught; exit 8' INT; echo ready; while :; do sleep 0.1; done")
        self.read_until(b"ready")
        os.write(self.ours, b"\x03")
        self.assertEqual(self.end(), 8)
        self.assertIn(b"caught", self.text)

    def test_a_shell_works(self):
        process = self.start("sh")
        self.read_until(b"# ")
        os.write(self.ours, b"echo $((6*7)); tty\r")
        self.read_until(b"/dev/pts/0")
        self.assertIn(b"\r\n42\r\n", self.text)
        os.write(self.ours, b"exit 3\r")
        self.assertEqual(self.end(), 3)

    def test_restored_after_sigterm(self):
        process = self.start("sh", "-c", "echo ready; exec sleep 1000")
        self.read_until(b"ready")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(self.end(), 128 + signal.SIGTERM)

    def test_restored_after_a_timeout(self):
        for seconds in (2, 4, 8, 16, 32, 64):  # until the program came to say so
            self.text = b""
            self.start("sh", "-c", "echo ready; exec sleep 1000", options=["--timeout", f"{seconds}s"])
            self.assertEqual(self.end(), 124)
            if b"ready" in self.text:
                return
        self.fail(f"it never got so far: {self.text!r}")

    def test_restored_after_a_panic(self):
        # It waits for a word: what a program wrote in the moment of a panic may die with the kernel.
        process = self.start("sh", "-c", "echo ready; read x; echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger; sleep 100")
        self.read_until(b"ready")
        os.write(self.ours, b"go\r")
        self.assertEqual(self.end(), 1)
        self.assertIn(b"panic", self.text.lower())

    def test_restored_when_the_monitor_dies(self):
        process = self.start("sh", "-c", "echo ready; exec sleep 1000")
        self.read_until(b"ready")
        for pid in smolvm.processes_with(self.mark):
            if pid != process.pid:
                smolvm.kill(pid)
        self.assertEqual(self.end(), 1)

    def test_the_terminals_errors_are_the_guests_too(self):
        process = self.start("sh", "-c", "echo oops >&2; test -t 0 && test -t 1 && test -t 2 && echo all")
        self.assertEqual(self.end(), 0)
        self.assertIn(b"oops\r\nall\r\n", self.text)


if __name__ == "__main__":
    smolvm.main()
