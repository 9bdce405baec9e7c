#!/usr/bin/env python3
"""The full kernel: what it has beside micro, and that it fails in the same words."""
import smolvm


class FullKernelTest(smolvm.MachineTest):
    def test_it_runs_programs(self):
        result = self.run_machine("sh", "-c", "uname -r; test -d /sys/fs/cgroup && echo cgroups; ls /proc/self/ns | wc -l; exit 6",
                                  options=["--kernel", "full"])
        self.assertEqual(result.status, 6, repr(result))
        self.assertRegex(result.out.decode(), r"^\d+\.\d+\.\d+-smol\ncgroups\n\d+\n$")

    def test_its_panics_are_told_apart_too(self):
        result = self.run_machine("sh", "-c", "echo c >/proc/sysrq-trigger; sleep 100", options=["--kernel", "full"])
        self.assertEqual(result.status, 1, repr(result))
        self.assertIn(b"panic", result.err.lower())


if __name__ == "__main__":
    smolvm.main()
