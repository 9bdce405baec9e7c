#!/usr/bin/env python3
"""Ends that are not the program's own: panics, resets, memory running out, a killed monitor; and bad input.

Every one must be told apart, say so in one line, and leave neither process nor file behind.
"""
import os
import resource
import signal
import subprocess
import unittest

import smolvm

PANIC = "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger; sleep 100"


class EndTest(smolvm.MachineTest):
    def test_a_kernel_panic_is_told_apart(self):
        result = self.run_machine("sh", "-c", PANIC)
        self.assertEqual(result.status, 1, repr(result))
        self.assertIn(b"panic", result.err.lower())

    def test_a_reset_from_inside_is_no_panic(self):
        result = self.run_machine("reboot", "-f")
        self.assertEqual(result.status, 1, repr(result))
        self.assertTrue(result.err.startswith(b"Error: "), repr(result))
        self.assertNotIn(b"panic", result.err.lower())

    def test_poweroff_from_inside_ends_the_run(self):
        result = self.run_machine("sh", "-c", "poweroff; sleep 100")
        self.assertEqual(result.status, 128 + signal.SIGTERM, repr(result))

    def test_memory_running_out_is_told_apart(self):
        result = self.run_machine("sh", "-c", "exec tail /dev/zero", options=["--mem", "96"])
        self.assertEqual(result.status, 137, repr(result))
        self.assertIn(b"memory", result.err)

    def test_a_kill_in_the_guest_is_not_called_out_of_memory(self):
        result = self.run_machine("sh", "-c", "kill -9 $$")
        self.assertEqual((result.status, result.err), (137, b""))

    def test_memory_pressure_is_survived(self):
        # Fills most of the memory with files again and again, so that the kernel must reclaim and refuse.
        script = "for i in 1 2 3; do dd if=/dev/zero of=/tmp/a bs=1M count=200 2>/dev/null; rm /tmp/a; done; " \
                 "dd if=/dev/zero of=/root/b bs=1M count=200 2>/dev/null; rm -f /root/b; echo alive; md5sum /bin/busybox | wc -l"
        self.assert_output(self.run_machine("sh", "-c", script, options=["--mem", "96"]), "alive\n1\n")

    def test_killing_the_command_line_leaves_nothing(self):
        process = self.start_machine("sh", "-c", "echo up; sleep 1000")
        self.assertEqual(process.stdout.readline(), b"up\n")
        self.assertGreaterEqual(len(smolvm.processes_with(self.mark)), 1)
        process.kill()
        process.wait()

    def test_killing_the_monitor_leaves_nothing_and_is_reported(self):
        process = self.start_machine("sh", "-c", "echo up; sleep 1000")
        self.assertEqual(process.stdout.readline(), b"up\n")
        monitors = [pid for pid in smolvm.processes_with(self.mark) if pid != process.pid]
        self.assertEqual(len(monitors), 1, monitors)
        os.kill(monitors[0], signal.SIGKILL)
        out, err = process.communicate(timeout=smolvm.LIMIT)
        self.assertEqual(process.returncode, 1, err)
        self.assertTrue(err.startswith(b"Error: "), err)


class BadInputTest(smolvm.MachineTest):
    def test_a_kernel_that_is_none(self):
        path = self.path("not-a-kernel", b"hello" * 1000)
        self.assert_error(self.run_machine("true", options=["--kernel", path]), path)

    def test_a_kernel_that_is_missing_empty_or_a_folder(self):
        for path in (self.path("missing"), self.path("empty", b""), self.folder):
            self.assert_error(self.run_machine("true", options=["--kernel", path]), path)

    def test_a_truncated_kernel(self):
        with open(smolvm.kernel_path("micro"), "rb") as file:
            path = self.path("cut-kernel", file.read(3 << 20))
        self.assert_error(self.run_machine("true", options=["--kernel", path]), path)

    def test_a_truncated_initrd(self):
        with open(os.environ["SMOL_IMAGE"], "rb") as file:
            path = self.path("cut.cpio", file.read(100001))
        self.assert_error(self.run_machine("true", options=["--initrd", path]), path)

    def test_an_initrd_that_is_none(self):
        for path in (self.path("missing"), self.path("empty", b""), self.path("text", b"hello" * 1000), self.folder):
            self.assert_error(self.run_machine("true", options=["--initrd", path]), path)

    def test_memory_too_small_or_too_large(self):
        for size in ("0", "1", "4", "999999999"):
            self.assert_error(self.run_machine("true", options=["--mem", size]), "memory")
        for size in ("x", "-1", "1.5"):
            result = self.run_machine("true", options=["--mem", size])
            self.assertIn(result.status, (1, 2), repr(result))
            self.assertIn(b"--mem", result.err)

    def test_a_root_that_is_missing_or_no_image(self):
        path = self.path("missing")
        self.assert_error(self.run_machine("true", options=["--rootfs", path]), path)
        for path in (self.path("odd", b"hello" * 1000), self.path("text", b"hello321" * 6400), self.path("empty", b"")):
            self.assert_error(self.run_machine("true", options=["--rootfs", path]), path)
        self.assert_error(self.run_machine("true", options=["--rootfs", "/dev/full"]), "/dev/full")

    def test_a_timeout_that_is_none(self):
        for text in ("0s", "x", "-1s", "5y", ""):
            result = self.run_machine("true", options=[f"--timeout={text}"])
            self.assertIn(result.status, (1, 2), repr(result))
            self.assertTrue(result.err.startswith(b"Error: "), repr(result))

    def test_unknown_and_unsupported_options_are_named(self):
        for option in ("--no-such", "--gpu", "--unprivileged"):
            result = self.run_machine("true", options=[option])
            self.assertEqual(result.status, 2, repr(result))
            self.assertIn(option.encode(), result.err)

    def test_a_terminal_that_is_none(self):
        self.assert_error(self.run_machine("true", options=["-t"]), "terminal")

    def test_a_host_that_is_out_of_descriptors(self):
        done = subprocess.run(self.command([], ["true"]), env=self.env, stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=smolvm.LIMIT, check=False,
                              preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (6, 6)))
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertTrue(done.stderr.startswith(b"Error: "), done.stderr)

    @unittest.skipUnless(os.geteuid() == 0 and os.path.exists("/dev/kvm"), "needs root and /dev/kvm to forbid it")
    def test_kvm_without_permission(self):
        done = subprocess.run(["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", smolvm.SMOLVM, "machine", "run",
                               "--accel", "kvm", "--", "true"], env=self.env, stdin=subprocess.DEVNULL, capture_output=True,
                              timeout=smolvm.LIMIT, check=False)
        if done.returncode == 0:
            self.skipTest("everybody may use /dev/kvm here")
        if b"smolvm" in done.stderr and b"Permission denied" in done.stderr and b"kvm" not in done.stderr:
            self.skipTest("nobody cannot read this checkout")
        self.assertEqual(done.returncode, 1, done.stderr)
        self.assertIn(b"/dev/kvm", done.stderr)
        self.assertEqual(done.stderr.count(b"\n"), 1, done.stderr)


class DiskTest(smolvm.MachineTest):
    """The monitor's own --disk, which can be written to."""

    def monitor(self, disk, *prefix):
        cmdline = "console=ttyS0 quiet reboot=t panic=-1 smol.exec=/bin/sh -- -c \"echo up; sleep 1000\""
        return subprocess.Popen([*prefix, os.path.join(os.path.dirname(smolvm.SMOLVM), "smol-vmm"), "--accel", smolvm.ACCEL, "--tables",
                                 "mp", "--memory", "size=64M", "--kernel", smolvm.kernel_path("micro"), "--initramfs",
                                 os.environ["SMOL_IMAGE"], "--cmdline", cmdline, "--serial", "tty", "--disk", disk], env=self.env,
                                stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE)

    def refused(self, disk, *words, prefix=()):
        process = self.monitor(disk, *prefix)
        self.addCleanup(self.end_process, process)
        out, err = process.communicate(timeout=smolvm.LIMIT)
        self.assert_error(smolvm.Result(process.returncode, out, err), *words)

    def setUp(self):
        super().setUp()
        self.disk = self.path("disk.img", b"")
        os.truncate(self.disk, 1 << 20)

    def test_one_writable_disk_for_two_machines(self):
        first = self.monitor(f"path={self.disk}")
        self.addCleanup(self.end_process, first)
        self.assertEqual(first.stdout.readline().strip(), b"up")
        self.refused(f"path={self.disk}", self.disk, "in use")
        self.refused(f"path={self.disk},readonly=on", self.disk, "in use")
        first.kill()
        first.wait()
        again = self.monitor(f"path={self.disk}")
        self.addCleanup(self.end_process, again)
        self.assertEqual(again.stdout.readline().strip(), b"up")

    def test_a_read_only_disk_opened_for_writing(self):
        os.chmod(self.disk, 0o444)
        prefix = ["setpriv", "--bounding-set=-dac_override"] if os.geteuid() == 0 else []
        self.refused(f"path={self.disk}", self.disk, "readonly=on", prefix=prefix)

    def test_an_image_that_is_a_folder_or_missing(self):
        self.refused(f"path={self.folder}", self.folder, "directory")
        self.refused(f"path={self.folder}/none", f"{self.folder}/none")


if __name__ == "__main__":
    smolvm.main()
