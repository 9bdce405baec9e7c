#!/usr/bin/env python3
"""Boot on real KVM (kvm-amd in the bench host) beside QEMU's microvm on the same KVM: the micro kernel to init's first line, same kernel,
image, command line and memory, in pairs; exits by kind; and the monitor's resident memory beyond the guest's."""
import json
import pathlib
import shlex
import statistics
import subprocess
import tempfile

from common import BIN, IMAGE, ROOT, TUNED, kernel, save

PAIRS = 10
MEMORY = 128

SCRIPT = """
set -e
C={cmdline}
for i in $(seq {pairs}); do
  echo "ours $(./time_to 'smol-init: ready' ./smol-vmm --accel kvm --tables mp --rng off --kernel ./vmlinux --initramfs ./image.cpio --memory size={memory}M --cmdline "$C smol.hello")"
  echo "qemu $(./time_to 'smol-init: ready' qemu-system-x86_64 -M microvm,x-option-roms=off,rtc=off -accel kvm -cpu host -m {memory} -nodefaults -no-user-config -display none -serial stdio -no-reboot -kernel ./vmlinux -initrd ./image.cpio -append "$C smol.hello")"
done
./smol-vmm --accel kvm --tables mp --rng off --kernel ./vmlinux --initramfs ./image.cpio --memory size={memory}M --stats /stats.json --cmdline "$C smol.exec=/bin/true" </dev/null >/dev/null 2>&1 || true
echo "stats $(tr -d '\\n' </stats.json)"
./smol-vmm --accel kvm --tables mp --kernel ./vmlinux --initramfs ./image.cpio --memory size={memory}M --cmdline "$C smol.hello smol.exec=/bin/sleep -- 100" </dev/null >/tmp/out 2>&1 &
for i in $(seq 100); do grep -q ready /tmp/out && break; sleep 0.2; done
P=$!
echo "rss $(awk '/^Size:/ {{ big = $2 >= {memory} * 1024 }} /^Rss:/ {{ if (big) guest += $2; else own += $2 }} END {{ print own, guest }}' /proc/$P/smaps)"
kill -9 $P
"""


def main():
    with tempfile.TemporaryDirectory() as folder:
        tool = pathlib.Path(folder) / "time_to"
        subprocess.run(["cc", "-O2", "-static", "-o", tool, ROOT / "bench/guest/time_to.c"], check=True)
        script = SCRIPT.format(cmdline=shlex.quote(TUNED.replace(" nolapic_timer", "")), pairs=PAIRS, memory=MEMORY)
        done = subprocess.run([ROOT / "tools/benchhost", "--cpus", "1", "--timeout", "900", "--mem", "1024", "--with-qemu", "--file", f"{BIN}/smol-vmm", "--file",
                               f"{kernel()}:/host/vmlinux", "--file", f"{IMAGE}:/host/image.cpio", "--file", f"{tool}", "--",
                               "sh", "-c", script], stdout=subprocess.PIPE, text=True, check=False)
    times = {"ours": [], "qemu": []}
    result = {}
    for line in done.stdout.splitlines():
        word, _, rest = line.partition(" ")
        if word in times:
            times[word].append(int(rest) / 1e6)
        elif word == "stats":
            result["stats"] = json.loads(rest)
        elif word == "rss":
            own, guest = rest.split()
            result["own_rss_kib"], result["guest_rss_kib"] = int(own), int(guest)
    if len(times["ours"]) != PAIRS or "stats" not in result or "own_rss_kib" not in result:
        raise SystemExit(f"the bench host gave too little (status {done.returncode}):\n{done.stdout}")
    ratios = [a / b for a, b in zip(times["ours"], times["qemu"])]
    result |= {"ours_ms": times["ours"], "qemu_ms": times["qemu"], "median_ratio": statistics.median(ratios)}
    print(f"ours {statistics.median(times['ours']):.0f} ms, QEMU {statistics.median(times['qemu']):.0f} ms, median ratio "
          f"{result['median_ratio']:.3f}")
    print(f"exits to init: {result['stats']['exits_to_init']}; by kind over the whole run: {result['stats']['exits']}")
    print(f"resident beyond guest memory: {result['own_rss_kib']} KiB (guest memory touched: {result['guest_rss_kib']} KiB)")
    save("boot_kvm", result)


if __name__ == "__main__":
    main()
