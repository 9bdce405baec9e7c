#!/usr/bin/env python3
"""Machines on real KVM: the CLI, named machines, the user network, shared directories, the balloon, both kernels and Debian's own inside the bench host. One boot of the host runs every case; a
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
VM = "./smolvm machine "
IN_WEB = VM + "exec web -- "
BALLOON = "./smol-vmm --accel kvm --tables mp --memory size=256M --kernel vmlinux-micro --initramfs image.cpio --balloon size=0 --cmdline " \
          "'console=ttyS0 rdinit=/bin/sleep -- 1000' --serial file=/tmp/serial2 --api-socket path=/tmp/api2 "
# Until the guest has followed; fails at once when the monitor has ended.
SHOWS = "until ./api_calls /tmp/api2 vm.info | grep -q '\"memory_actual_size\":{}[,}}]'; do kill -0 $! || exit 9; sleep 0.2; done; "
CASES = {
    "named machine": ("mkdir -p /tmp/site; echo from the host >/tmp/site/page; " + VM + "create --accel kvm --name web --net -p 8080:80 -v /tmp/site:/site:ro && "
                      + VM + "start web | sed 's/(.*//'", 0, "Created machine: web\n  CPUs: 1, Memory: 256 MiB\nStarted machine: web \n"),
    "exec": (IN_WEB + "sh -c 'hostname; exit 3'; echo $?", 0, "web\n3\n"),
    "shared directory": (IN_WEB + "cat /site/page; " + IN_WEB + "touch /site/new 2>/dev/null || echo read-only; echo changed >/tmp/site/page; " + IN_WEB + "cat /site/page",
                         0, "from the host\nread-only\nchanged\n"),
    # httpd listens before it goes to the background.
    "network": (IN_WEB + "httpd -p 80 -h /site && wget -q -O - http://127.0.0.1:8080/page; httpd -p 127.0.0.1:8000 -h /tmp && "
                + IN_WEB + "wget -q -O - http://10.0.2.2:8000/site/page; head -c 3000000 /dev/urandom >/tmp/site/big; wget -q -O - http://127.0.0.1:8080/big | cmp - /tmp/site/big; "
                + IN_WEB + "wget -q -O - http://10.0.2.2:8000/site/big | cmp - /tmp/site/big && echo same", 0, "changed\nchanged\nsame\n"),
    "cp": (VM + "cp /tmp/site/big web:/root/in && " + VM + "cp web:/root/in /tmp/back && cmp /tmp/back /tmp/site/big && echo same", 0, "same\n"),
    "stop, start, delete": (VM + "stop web && " + VM + "start web >/dev/null && " + IN_WEB + "wc -c /root/in; " + VM + "stop web && " + VM + "delete -f web",
                            0, "Stopped machine: web\n3000000 /root/in\nStopped machine: web\nDeleted machine: web\n"),
    "balloon": (BALLOON + "& ./api_calls /tmp/api2 vmm.ping >/dev/null; until grep -q 'Run /bin/sleep' /tmp/serial2; do kill -0 $! || exit 9; sleep 0.2; done; "
                "./api_calls /tmp/api2 'vm.resize={\"desired_balloon\":104857600}' >/dev/null; " + SHOWS.format(256 * 2**20 - 104857600)
                + "./api_calls /tmp/api2 'vm.resize={\"desired_balloon\":0}' >/dev/null; " + SHOWS.format(256 * 2**20)
                + "./api_calls /tmp/api2 vmm.shutdown >/dev/null; wait $!; echo $?", 0, "0\n"),
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
