#!/usr/bin/env python3
"""Machines with several CPUs: found and used by the kernel, taken off and on, and right under load; what cannot be is refused by name."""
import os
import subprocess

import smolvm

SUMS = """
want=$(sha256sum </tmp/data)
i=0
while [ $i -lt $((2 * $(nproc))) ]; do
  (j=0; while [ $j -lt 3 ]; do
     [ "$(sha256sum </tmp/data)" = "$want" ] || echo wrong; j=$((j + 1)); x=$(echo $j | sed s/1/2/ | tr 0-9 a-j)
   done; echo right) &
  i=$((i + 1))
done
wait
"""


class SeveralCpusTest(smolvm.MachineTest):
    def stress_folder(self):
        root = self.path("root")
        os.makedirs(os.path.join(root, "bin"))
        source = os.path.join(smolvm.SOURCE, "tests/integration/several_cpus.c")
        subprocess.run(["musl-gcc", "-static", "-O2", "-pthread", "-idirafter", "/usr/include", "-idirafter",
                        "/usr/include/x86_64-linux-gnu", "-o", os.path.join(root, "bin/several_cpus"), source], check=True)
        return root

    def test_the_kernel_finds_them(self):
        for count in (2, 4, 8, 32):
            with self.subTest(count):
                result = self.run_machine("sh", "-c", "nproc; grep -c ^processor /proc/cpuinfo; cat /sys/devices/system/cpu/online",
                                          options=["--cpus", str(count)])
                self.assert_output(result, f"{count}\n{count}\n0-{count - 1}\n")

    def test_processes_on_all_of_them(self):
        for count in (2, 4, 8):
            with self.subTest(count):
                result = self.run_machine("sh", "-c", "head -c 300000 /dev/urandom >/tmp/data;" + SUMS, options=["--cpus", str(count)])
                self.assert_output(result, "right\n" * (2 * count))

    def test_threads_of_one_process(self):
        root = self.stress_folder()
        for count in (2, 4):
            with self.subTest(count):
                result = self.run_machine("several_cpus", str(count), options=["--cpus", str(count), "--rootfs", root], limit=400)
                self.assert_output(result, "counters\npingpong\nmappings\ncode\n")

    def test_one_is_taken_off_and_on_again(self):
        script = "cd /sys/devices/system/cpu/cpu1; for i in 1 2 3; do echo 0 >online; nproc; echo 1 >online; nproc; done"
        self.assert_output(self.run_machine("sh", "-c", script, options=["--cpus", "2"]), "1\n2\n" * 3)

    def test_a_reboot_ends_the_machine(self):
        result = self.run_machine("sh", "-c", "reboot -f; sleep 100", options=["--cpus", "4"])
        self.assert_error(result, "ended before the program did")

    def test_what_cannot_be_is_refused(self):
        for options, word in ((["--cpus", "2", "--kernel", "micro"], "micro"), (["--cpus", "33"], "33"), (["--cpus", "0"], "0")):
            with self.subTest(options):
                result = self.run_machine("true", options=options)
                self.assertEqual(result.status, 1, repr(result))
                self.assertIn(word, result.err.decode().splitlines()[0])
        monitor = os.path.join(os.path.dirname(smolvm.SMOLVM), "smol-vmm")
        for words, told in ((["--cpus", "boot=2", "--deterministic"], "--deterministic"), (["--cpus", "boot=2,max=4"], "max=4")):
            with self.subTest(words):
                done = subprocess.run([monitor, "--kernel", "none", *words], capture_output=True, text=True, check=False)
                self.assertNotEqual(done.returncode, 0)
                self.assertIn(told, done.stderr)


if __name__ == "__main__":
    smolvm.main()
