#!/usr/bin/env python3
"""smol-init alone, as PID 1 of a PID namespace: the whole run protocol without a machine, in milliseconds.

SMOL_INIT names the binary. Where this host forbids user namespaces the tests are skipped, and say so; the same
behaviour is then covered through a VM by run_test.py.
"""
import hashlib
import os
import random
import signal
import struct
import subprocess
import unittest

import run_protocol as protocol
from run_protocol import CONFIG, EXIT, SIGNAL, STARTED, STDIN, STDIN_EOF, STDOUT, WINSIZE, config, frame

INIT = os.environ.get("SMOL_INIT", "")


def run(argv, **options):
    return protocol.run(INIT, argv, **options)


def namespaces():
    return subprocess.run(["unshare", "--user", "--map-root-user", "--mount", "--pid", "--fork", "--net", "true"],
                          capture_output=True, check=False).returncode == 0


@unittest.skipUnless(namespaces(), "this host forbids user namespaces")
class InitTest(unittest.TestCase):
    def ended(self, result, kind, value, text=""):
        self.assertEqual((result.kind, result.value), (kind, value), result.__dict__)
        self.assertIn(text, result.text)

    def test_hello_comes_first_and_output_is_told_apart(self):
        result = run(["sh", "-c", "echo out; echo err >&2"])
        self.assertEqual(result.hello[0], protocol.VERSION)
        self.assertTrue(result.started)
        self.assertEqual((result.out, result.err), (b"out\n", b"err\n"))
        self.ended(result, protocol.STATUS, 0)

    def test_statuses(self):
        for status in (0, 1, 7, 125, 255):
            self.ended(run(["sh", "-c", f"exit {status}"]), protocol.STATUS, status)

    def test_signals_that_end_the_program(self):
        for number in (signal.SIGTERM, signal.SIGSEGV, signal.SIGKILL, signal.SIGHUP):
            result = run(["sh", "-c", f"kill -{int(number)} $$"])
            self.ended(result, protocol.SIGNALLED, number)

    def test_missing_program_is_127_and_says_so(self):
        result = run(["no-such-program"])
        self.ended(result, protocol.STATUS, 127)
        self.assertIn(b"cannot run 'no-such-program': No such file", result.err)

    def test_program_that_is_not_executable_is_126(self):
        result = run(["/etc/passwd"])
        self.ended(result, protocol.STATUS, 126)
        self.assertIn(b"/etc/passwd", result.err)

    def test_arguments_environment_directory_hostname(self):
        result = run(["sh", "-c", 'printf "%s|" "$0" "$@" "$A" "$HOME" "$PWD" "$(hostname)"', "zero", "a b", "", "*"],
                     env=["A=x=y z"], cwd="/usr/lib", before=protocol.setup(protocol.HOSTNAME, "box"))
        self.assertEqual(result.out.decode(), "zero|a b||*|x=y z|/root|/usr/lib|box|")

    def test_path_of_the_environment_is_used(self):
        result = run(["true"], env=["PATH=/nowhere"])
        self.ended(result, protocol.STATUS, 127)

    def test_missing_directory_and_user_are_init_failures(self):
        self.ended(run(["true"], cwd="/no/such"), protocol.INIT_FAILURE, 1, "/no/such")
        self.ended(run(["true"], user="nosuchuser"), protocol.INIT_FAILURE, 1, "nosuchuser")
        self.ended(run(["true"], user="0:nosuchgroup"), protocol.INIT_FAILURE, 1, "nosuchgroup")
        result = run(["true"], before=protocol.root(1, "/dev/no-such-disk"))
        self.ended(result, protocol.INIT_FAILURE, 1, "/dev/no-such-disk")
        self.assertFalse(result.started)

    def test_stdin_is_empty_unless_asked_for(self):
        self.assertEqual(run(["cat"]).out, b"")

    def test_ten_mebibytes_go_round_unchanged(self):
        data = random.Random(1).randbytes(10 << 20)
        result = run(["cat"], stdin=data)
        self.assertEqual(hashlib.sha256(result.out).digest(), hashlib.sha256(data).digest())
        self.ended(result, protocol.STATUS, 0)

    def test_output_of_a_program_that_ends_at_once_is_whole(self):
        result = run(["sh", "-c", "head -c 1000000 /dev/zero; exit 3"])
        self.assertEqual(len(result.out), 1000000)
        self.ended(result, protocol.STATUS, 3)

    def test_input_that_nobody_reads_does_not_hold_a_signal_back(self):
        init = protocol.Init(INIT)
        init.send(frame(CONFIG, config(["sleep", "100"], flags=protocol.WITH_STDIN)))
        init.wait_for(STARTED)
        for _ in range(4):
            init.send(frame(STDIN, b"x" * 65536))
        init.send(frame(SIGNAL, struct.pack("<I", signal.SIGTERM)))
        self.ended(init.finish(), protocol.SIGNALLED, signal.SIGTERM)

    def test_input_of_a_program_that_closed_it_is_thrown_away(self):
        result = run(["sh", "-c", "exec <&-; sleep 0.2; echo done"], stdin=b"y" * (1 << 20))
        self.assertEqual(result.out, b"done\n")
        self.ended(result, protocol.STATUS, 0)

    def test_what_the_program_left_behind_is_killed(self):
        result = run(["sh", "-c", "sleep 1000 & (setsid sleep 1000 &) ; exit 5"])
        self.ended(result, protocol.STATUS, 5)

    def test_orphans_are_reaped(self):
        script = "(sh -c 'sleep 0.1 & exit' &) ; sleep 0.5; cat /proc/[0-9]*/stat | grep -c ' Z ' ; true"
        # /proc here is the host's when it cannot be mounted, so only the end is checked.
        self.ended(run(["sh", "-c", script]), protocol.STATUS, 0)

    def test_a_host_that_goes_away_ends_the_machine(self):
        init = protocol.Init(INIT)
        init.send(frame(CONFIG, config(["sleep", "1000"])))
        init.wait_for(STARTED)
        init.close()  # waits for the process: a timeout raises

    def test_terminal(self):
        init = protocol.Init(INIT)
        init.send(frame(CONFIG, config(["sh", "-c", "stty size; tty >/dev/null && echo yes; read x; stty size; echo $x"],
                                       flags=protocol.TTY | protocol.WITH_STDIN, rows=33, columns=101)))
        while b"yes" not in init.result.out:
            init.wait_for(STDOUT)
        init.send(frame(WINSIZE, struct.pack("<HH", 44, 77)))
        init.send(frame(STDIN, b"hello\n"))
        result = init.finish()
        self.assertEqual(result.out.replace(b"\r", b""), b"33 101\nyes\nhello\n44 77\nhello\n")
        self.ended(result, protocol.STATUS, 0)

    def test_control_c_in_a_terminal(self):
        init = protocol.Init(INIT)
        init.send(frame(CONFIG, config(["sh", "-c", "echo up; exec sleep 100"], flags=protocol.TTY | protocol.WITH_STDIN)))
        while b"up" not in init.result.out:
            init.wait_for(STDOUT)
        init.send(frame(STDIN, b"\x03"))
        self.ended(init.finish(), protocol.SIGNALLED, signal.SIGINT)

    def test_large_output_of_a_terminal_is_whole(self):
        result = run(["sh", "-c", "stty raw; head -c 300000 /dev/zero"], flags=protocol.TTY)
        self.assertEqual(result.out, b"\0" * 300000)

    def test_poweroff_from_inside_ends_the_program(self):
        self.ended(run(["sh", "-c", "kill -USR2 1; exec sleep 100"]), protocol.SIGNALLED, signal.SIGTERM)

    def test_hostile_frames_end_the_run_with_a_reason(self):
        good = config(["true"])
        bad_first = {
            "an unknown type": frame(99),
            "a guest's type": frame(EXIT, b"\0" * 8),
            "flags": frame(CONFIG, good, flags=1),
            "a huge length": struct.pack("<IHH", 0xFFFFFFFF, CONFIG, 0),
            "STDIN first": frame(STDIN, b"x"),
            "an empty CONFIG": frame(CONFIG),
            "an old version": frame(CONFIG, config(["true"], version=0)),
            "no arguments": frame(CONFIG, config([])),
            "unknown flags": frame(CONFIG, config(["true"], flags=0x80)),
            "a detached run": frame(CONFIG, config(["true"], flags=protocol.DETACHED)),
            "an unknown setup": protocol.setup(99, "x"),
            "setup 0": protocol.setup(0, "x"),
            "a root of unknown flags": protocol.setup(protocol.ROOT, "", "", "", "", flags=9),
            "a missing device": protocol.root(2) + frame(CONFIG, good),
            "an upper device without an overlay": protocol.root(2, "/dev/vda", "", "/dev/vdb") + frame(CONFIG, good),
            "two roots": protocol.root(0) + protocol.root(0) + frame(CONFIG, good),
            "a cut setup": frame(protocol.SETUP, b"\2\0\0\0\0\0\0\0box"),
            "setup with bytes left over": protocol.setup(protocol.HOSTNAME, "box", tail=b"x"),
            "a short setup": frame(protocol.SETUP, b"\2"),
            "unmounting before the start": protocol.setup(protocol.UNMOUNT, "/x"),
            "too many setups": protocol.setup(protocol.HOSTNAME, "box") * 1025 + frame(CONFIG, good),
            "a secret with a path": protocol.setup(protocol.SECRET, "../x", "", tail=b"v") + frame(CONFIG, good),
            "an agent of another version": frame(protocol.AGENT, struct.pack("<II", 1, 0)),
            "an agent with flags": frame(protocol.AGENT, struct.pack("<II", 2, 1)),
            "a request at the start": frame(protocol.STATS),
            "a cut string": frame(CONFIG, good[:-1]),
            "bytes left over": frame(CONFIG, good + b"x"),
            "an argument count beyond the strings": frame(CONFIG, good[:8] + b"\xff\xff\xff\xff" + good[12:]),
            "a sum that wraps": frame(CONFIG, good[:8] + struct.pack("<II", 0x80000001, 0x80000000) + good[16:]),
            "an environment entry without =": frame(CONFIG, config(["true"], env=["NOVALUE"])),
        }
        for name, data in bad_first.items():
            with self.subTest(name):
                init = protocol.Init(INIT)
                init.send(data)
                self.ended(init.finish(), protocol.INIT_FAILURE, 1)

    def test_hostile_frames_while_the_program_runs(self):
        bad_later = {
            "a second CONFIG": frame(CONFIG, config(["true"])),
            # The pipe to the program takes 64 KiB, which open the window again.
            "more input than the window": frame(STDIN, b"x" * 65536) * 6,
            "input after its end": frame(STDIN_EOF) + frame(STDIN, b"x"),
            "a signal that is none": frame(SIGNAL, struct.pack("<I", 65)),
            "signal 0": frame(SIGNAL, struct.pack("<I", 0)),
            "a short signal": frame(SIGNAL, b"\1"),
            "a long window size": frame(WINSIZE, b"\0" * 5),
            "a huge STDIN": struct.pack("<IHH", 65537, STDIN, 0),
        }
        for name, data in bad_later.items():
            with self.subTest(name):
                init = protocol.Init(INIT)
                init.send(frame(CONFIG, config(["sleep", "100"], flags=protocol.WITH_STDIN)))
                init.wait_for(STARTED)
                init.send(data)
                self.ended(init.finish(), protocol.INIT_FAILURE, 1, "protocol:")

    def test_random_bytes_never_hang_it(self):
        for seed in range(30):
            init = protocol.Init(INIT)
            noise = random.Random(seed)
            if seed % 2:
                init.send(frame(CONFIG, config(["sleep", "100"], flags=protocol.WITH_STDIN)))
            try:
                init.send(noise.randbytes(3000))
                init.socket.shutdown(1)
            except OSError:
                pass  # it has hung up already
            init.finish()


if __name__ == "__main__":
    unittest.main()
