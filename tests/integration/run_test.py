#!/usr/bin/env python3
"""`smolvm machine run`: streams, statuses, settings, from the command line into the guest and back."""
import hashlib
import json
import os
import random
import signal
import subprocess

import smolvm


class RunTest(smolvm.MachineTest):
    def test_uname_prints_the_guests_line_only(self):
        result = self.run_machine("uname", "-srm")
        self.assertRegex(result.out.decode(), r"\ALinux \d+\.\d+\.\d+-smol x86_64\n\Z")
        self.assertEqual((result.status, result.err), (0, b""))

    def test_statuses(self):
        for status in (0, 1, 7, 255):
            self.assert_output(self.run_machine("sh", "-c", f"exit {status}"), "", status)

    def test_a_signal_is_128_and_its_number(self):
        for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM):
            self.assertEqual(self.run_machine("sh", "-c", f"kill -{int(number)} $$").status, 128 + number)

    def test_missing_and_not_executable_programs(self):
        result = self.run_machine("no-such-program")
        self.assertEqual(result.status, 127, repr(result))
        self.assertIn(b"no-such-program", result.err)
        result = self.run_machine("/etc/passwd")
        self.assertEqual(result.status, 126, repr(result))
        self.assertIn(b"/etc/passwd", result.err)

    def test_timeout_is_124_and_says_so(self):
        result = self.run_machine("sleep", "99", options=["--timeout", "3s"])
        self.assertEqual(result.status, 124, repr(result))
        self.assertIn(b"3s", result.err)

    def test_output_and_errors_are_told_apart(self):
        result = self.run_machine("sh", "-c", "echo out; echo err >&2; exit 3")
        self.assertEqual((result.status, result.out, result.err), (3, b"out\n", b"err\n"))

    def test_ten_mebibytes_go_round_unchanged(self):
        data = random.Random(7).randbytes(10 << 20)
        result = self.run_machine("cat", stdin=data)
        self.assertEqual(result.status, 0, repr(result))
        self.assertEqual(hashlib.sha256(result.out).hexdigest(), hashlib.sha256(data).hexdigest())

    def test_sha256_of_input_is_computed_in_the_guest(self):
        data = random.Random(8).randbytes(1 << 20)
        result = self.run_machine("sha256sum", stdin=data)
        self.assert_output(result, hashlib.sha256(data).hexdigest() + "  -\n")

    def test_without_i_standard_input_is_empty(self):
        process = self.start_machine("cat", stdin=subprocess.PIPE)
        self.assertEqual(process.wait(smolvm.LIMIT), 0)
        process.stdin.close()
        self.assertEqual(process.stdout.read(), b"")

    def test_input_that_nobody_reads(self):
        result = self.run_machine("true", stdin=b"x" * (4 << 20))
        self.assert_output(result, "")

    def test_arguments_arrive_as_they_are(self):
        words = ["a b", "", "*", "$HOME", "\\", "'", '"', "-x", "--", "ü\n"]
        result = self.run_machine("sh", "-c", 'printf "[%s]" "$@"', "sh", *words)
        self.assert_output(result, "".join(f"[{word}]" for word in words))

    def test_environment_directory_user_hostname(self):
        script = 'echo "$A|$HERE|$HOME|$(pwd)|$(id -u):$(id -g)|$(hostname)"'
        self.env["HERE"] = "from here"
        options = ["-e", "A=x=y z", "--env", "HERE", "-w", "/tmp", "--user", "1234:99", "--hostname", "box"]
        result = self.run_machine("sh", "-c", script, options=options)
        self.assert_output(result, "x=y z|from here|/|/tmp|1234:99|box\n")
        result = self.run_machine("sh", "-c", script, options=["--user", "nobody"])
        self.assert_output(result, "||/|/|65534:65534|vm\n")

    def test_settings_that_the_image_has_not_are_errors(self):
        self.assert_error(self.run_machine("true", options=["-w", "/no/such"]), "/no/such")
        self.assert_error(self.run_machine("true", options=["--user", "nosuchuser"]), "nosuchuser")

    def test_the_file_system_of_the_default_image(self):
        script = "set -e; echo x >/tmp/a; echo y >/root/b; cat /tmp/a /root/b; test -c /dev/null; test -d /proc/1; " \
                 "ls /dev/fd/ >/dev/null; mount | grep -c tmpfs >/dev/null; grep -q ' /proc ' /proc/mounts; ping -c1 127.0.0.1 >/dev/null"
        self.assert_output(self.run_machine("sh", "-c", script), "x\ny\n")

    def test_orphans_are_reaped_and_do_not_delay_the_end(self):
        script = "(sh -c 'sleep 0.2 & exit' &); sleep 1000 & sleep 0.5; " \
                 "while grep -q '^State:.Z' /proc/[0-9]*/status 2>/dev/null; do sleep 0.1; done; echo none"
        self.assert_output(self.run_machine("sh", "-c", script), "none\n")

    def test_signals_are_forwarded(self):
        process = self.start_machine("sh", "-c", "trap 'echo caught; exit 9' TERM; echo ready; while :; do sleep 0.1; done")
        self.assertEqual(process.stdout.readline(), b"ready\n")
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=smolvm.LIMIT)
        self.assertEqual((process.returncode, out), (9, b"caught\n"), err)

    def test_a_signal_ends_a_program_that_does_not_read_its_input(self):
        process = self.start_machine("sh", "-c", "echo ready; exec sleep 1000", options=["-i"], stdin=subprocess.PIPE)
        self.assertEqual(process.stdout.readline(), b"ready\n")
        os.set_blocking(process.stdin.fileno(), False)
        try:
            while True:
                os.write(process.stdin.fileno(), b"z" * 65536)
        except BlockingIOError:
            pass  # the program's pipe, its window and ours are full
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(smolvm.LIMIT), 128 + signal.SIGTERM)

    def test_a_reader_that_goes_away(self):
        process = self.start_machine("sh", "-c", "while :; do echo line; done")
        self.assertEqual(process.stdout.readline(), b"line\n")
        process.stdout.close()
        process.wait(smolvm.LIMIT)  # what it says is the shell's affair; that it ends is ours

    def test_a_slow_reader_gets_everything(self):
        process = self.start_machine("sh", "-c", "seq 1 200000")
        smolvm.wait_until(lambda: False, 3)
        out, _ = process.communicate(timeout=smolvm.LIMIT)
        self.assertEqual(out, b"".join(b"%d\n" % n for n in range(1, 200001)))

    def test_stats(self):
        path = self.path("stats.json")
        self.assert_output(self.run_machine("true", options=["--stats", path]), "")
        with open(path, encoding="utf-8") as file:
            stats = json.load(file)
        self.assertEqual(stats["accel"], smolvm.ACCEL)
        self.assertGreater(stats["ns_to_init"], 0)
        self.assertGreater(sum(stats["exits"].values()), 0)
        if smolvm.ACCEL == "soft":
            self.assertGreater(stats["guest_instructions_to_init"], 1_000_000)
            self.assertLessEqual(stats["guest_instructions_to_init"], 12_000_000)


if __name__ == "__main__":
    smolvm.main()
