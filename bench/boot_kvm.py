#!/usr/bin/env python3
"""Boot on real KVM (kvm-amd in the bench host) beside QEMU's microvm on the same KVM: the micro kernel to init's first line, same kernel,
image, command line and memory, in pairs; exits by kind; and the monitor's resident memory beyond the guest's.

The pairs run twice. Once on a bench host whose clock counts instructions: exact, the same in each run. Once on the clock of this machine, each
start in a bench host of its own: that figure is noisy, and on a host that is used twice it says more about the host's QEMU than about either
side. Memory that held translated code is written some thirty times slower until that code is thrown away, so a VM that is given the pages of
an earlier one comes up late by half a second, or not, as the host's page allocator likes."""
import json
import pathlib
import shlex
import statistics
import subprocess
import tempfile

from common import BIN, IMAGE, ROOT, TUNED, kernel, save

PAIRS = 10
MEMORY = 128

OURS = """
./time_to 'smol-init: ready' ./smol-vmm --accel kvm --tables mp --rng off --kernel ./vmlinux --initramfs ./image.cpio --memory size={memory}M --cmdline {cmdline}" smol.hello"
"""
PEER = """
./time_to 'smol-init: ready' qemu-system-x86_64 -M microvm,x-option-roms=off,rtc=off -accel kvm -cpu host -m {memory} -nodefaults -no-user-config -display none -serial stdio -no-reboot -kernel ./vmlinux -initrd ./image.cpio -append {cmdline}" smol.hello"
"""

FIGURES_SCRIPT = """
set -e
C={cmdline}
./smol-vmm --accel kvm --tables mp --rng off --kernel ./vmlinux --initramfs ./image.cpio --memory size={memory}M --stats /tmp/stats.json --cmdline "$C smol.exec=/bin/true" </dev/null >/dev/null 2>&1 || true
echo "stats $(tr -d '\\n' </tmp/stats.json)"
./smol-vmm --accel kvm --tables mp --kernel ./vmlinux --initramfs ./image.cpio --memory size={memory}M --cmdline "$C smol.hello smol.exec=/bin/sleep -- 100" </dev/null >/tmp/out 2>&1 &
for i in $(seq 100); do grep -q ready /tmp/out && break; sleep 0.2; done
P=$!
sleep 8  # what only the start needed goes after 5 s
echo "rss $(awk '/^Size:/ {{ big = $2 >= {memory} * 1024 }} /^Rss:/ {{ if (big) guest += $2; else own += $2 }} END {{ print own, guest }}' /proc/$P/smaps)"
kill -9 $P
"""


def run_there(script, tool, *options):
    command = shlex.quote(TUNED.replace(" nolapic_timer", ""))
    return subprocess.run([ROOT / "tools/benchhost", "--cpus", "1", "--timeout", "900", "--mem", "1024", "--with-qemu", *options,
                           "--file", f"{BIN}/smol-vmm", "--file", f"{kernel()}:/host/vmlinux", "--file",
                           f"{IMAGE}:/host/image.cpio", "--file", f"{tool}", "--", "sh", "-c",
                           script.format(cmdline=command, memory=MEMORY)],
                          stdout=subprocess.PIPE, text=True, check=True).stdout.splitlines()


def summary(name, ours, peer):
    ratio = statistics.median(a / b for a, b in zip(ours, peer, strict=True))
    print(f"{name}: ours {statistics.median(ours):.1f} ms, QEMU {statistics.median(peer):.1f} ms, median ratio {ratio:.3f}")
    return {"ours_ms": ours, "qemu_ms": peer, "median_ratio": ratio}


def milliseconds(lines):
    return [int(line) / 1e6 for line in lines]


def main():
    result = {}
    with tempfile.TemporaryDirectory() as folder:
        tool = pathlib.Path(folder) / "time_to"
        subprocess.run(["cc", "-O2", "-static", "-o", tool, ROOT / "bench/guest/time_to.c"], check=True)
        counted = milliseconds(run_there((OURS + PEER) * PAIRS, tool, "--count"))
        result["counted"] = summary("instructions counted as time", counted[0::2], counted[1::2])
        ours, peer = [], []
        for _ in range(PAIRS):
            ours += milliseconds(run_there(OURS, tool))
            peer += milliseconds(run_there(PEER, tool))
        result["clock"] = summary("this machine's clock", ours, peer)
        for line in run_there(FIGURES_SCRIPT, tool):
            word, _, rest = line.partition(" ")
            if word == "stats":
                result["stats"] = json.loads(rest)
            elif word == "rss":
                own, guest = rest.split()
                result["own_rss_kib"], result["guest_rss_kib"] = int(own), int(guest)
    print(f"exits to init: {result['stats']['exits_to_init']}; by kind over the whole run: {result['stats']['exits']}")
    print(f"resident beyond guest memory: {result['own_rss_kib']} KiB (guest memory touched: {result['guest_rss_kib']} KiB)")
    save("boot_kvm", result)


if __name__ == "__main__":
    main()
