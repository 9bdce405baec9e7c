#!/usr/bin/env python3
"""Machines on real KVM: the CLI, both kernels and Debian's own kernel inside the bench host. One boot of the host runs every case; a
case is a shell line there, its expected exit status, and what its output must be."""
import os
import pathlib
import subprocess
import sys
import unittest

ROOT = pathlib.Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "tests/integration"))
sys.dont_write_bytecode = True

import stock_kernel_test  # noqa: E402

RUN = "./smolvm machine run --accel kvm "
MONITOR = "./smol-vmm --accel kvm --tables mp --cpus boot=2 --kernel vmlinux-micro --initramfs image.cpio --cmdline " \
          "'console=ttyS0 rdinit=/bin/sleep -- 1000' --serial file=/tmp/serial --api-socket path=/tmp/api --event-monitor path=/tmp/events "
BOOTED = "until grep -q 'Run /bin/sleep' /tmp/serial; do sleep 0.2; done; "
TURNS = " ".join(["vm.pause vm.resume"] * 20)
CASES = {
    "api": (f"{MONITOR} & ./api_calls /tmp/api vmm.ping >/dev/null; {BOOTED} ./api_calls /tmp/api {TURNS} vm.pause vm.counters vm.reboot >/tmp/calls "
            f"&& {BOOTED} ./api_calls /tmp/api vm.nmi vm.pause vm.info >/tmp/info && ./api_calls /tmp/api vm.shutdown vm.boot vmm.shutdown >/dev/null; wait $!; "
            "echo $?; grep -c resumed /tmp/events; grep -c '\"exits_mmio\":[1-9]' /tmp/calls; grep -c '\"state\":\"Paused\"' /tmp/info",
            0, "0\n20\n1\n1\n"),
    "status": (RUN + "-- sh -c 'echo out; echo err >&2; exit 7' 2>/dev/null", 7, "out\n"),
    "signal": (RUN + "-- sh -c 'kill -9 $$'", 137, ""),
    "input": ("seq 1 200000 | " + RUN + "-i -- sha256sum | cmp - /tmp/sum && echo same", 0, "same\n"),
    "timeout": (RUN + "--timeout 2s -- sleep 60 2>&1", 124, "Error: timed out after 2s\n"),
    "not found": (RUN + "-- /no/such/program 2>/dev/null", 127, ""),
    "accelerator": (RUN + "--stats /tmp/stats -- true; grep -c '\"accel\": \"kvm\"' /tmp/stats", 0, "1\n"),
    "full kernel": (RUN + "--kernel full -- sh -c 'test -d /sys/fs/cgroup && echo cgroups'", 0, "cgroups\n"),
    "two CPUs": (RUN + "--cpus 2 -- sh -c 'nproc; (sha256sum </bin/busybox) & sha256sum </bin/busybox; wait' | uniq | cut -c -3 | wc -l", 0, "2\n"),
    "block device": (RUN + "--rootfs root.ext4 -- sh -c 'echo new >/data/new; cat /data/new'", 0, "new\n"),
    "panic": (RUN + "-- sh -c 'echo c >/proc/sysrq-trigger; sleep 100' 2>&1 | grep -c 'kernel panicked'", 0, "1\n"),
    "stock kernel": (RUN + "--kernel ./vmlinuz --initrd ./modules.cpio -- sh -c 'uname -r; exit 5'", 5, "{release}\n"),
}


class MachinesTest(stock_kernel_test.StockKernelTest):
    # Its set-up makes what the stock kernel needs; its own tests run on the software CPU.
    test_to_user_space = test_a_root_on_a_block_device = None

    def test_cases(self):
        tree = self.path("root")
        stock_kernel_test.roots_test.busybox_folder(tree)
        image = self.path("root.ext4", b"")
        os.truncate(image, 32 << 20)
        subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, image], check=True)
        script = "export SMOLVM_SHARE=/host; seq 1 200000 | sha256sum >/tmp/sum\n"
        for number, (line, _, _) in enumerate(CASES.values()):
            script += f"({line}) >/tmp/o; echo \"== {number} $?\"; cat /tmp/o\n"
        share = pathlib.Path(os.environ["SMOLVM_SHARE"])
        files = {os.environ["SMOLVM"]: "smolvm", os.path.dirname(os.environ["SMOLVM"]) + "/smol-vmm": "smol-vmm",
                 str((share / "vmlinux-micro").resolve()): "vmlinux-micro", str((share / "vmlinux-full").resolve()): "vmlinux-full",
                 self.kernel: "vmlinuz", self.initrd: "modules.cpio", image: "root.ext4", os.environ["SMOL_IMAGE"]: "image.cpio",
                 os.environ["SMOL_API_CALLS"]: "api_calls"}
        words = [word for host, name in files.items() for word in ("--file", f"{host}:/host/{name}")]
        done = subprocess.run([ROOT / "tools/benchhost", "--cpus", "1", "--mem", "2048", "--timeout", "700", *words, "--", "sh", "-c", script],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", check=False)
        found = {}
        for part in ("\n" + done.stdout).split("\n== ")[1:]:
            head, _, output = part.partition("\n")
            number, status = head.split()
            found[int(number)] = (int(status), output + ("\n" if output and not output.endswith("\n") else ""))
        for number, (name, (_, status, output)) in enumerate(CASES.items()):
            with self.subTest(name):
                self.assertIn(number, found, done.stdout)
                self.assertEqual(found[number], (status, output.format(release=self.release)), done.stdout)


if __name__ == "__main__":
    unittest.main()
