#!/usr/bin/env python3
"""The user-mode network beside QEMU's: bulk throughput both ways (iperf3 in the guest, its server on the host's loopback) and requests a
second to a server in the guest through a published port: on one connection (wrk, one request at a time), on 16 that stay (wrk), with one
connection a request (ab). The same
kernel, root file system and accelerator for both, in pairs.

    bench/net.py            software CPU beside TCG, on this machine's clock
    bench/net.py --kvm      kvm-amd in the bench host, whose clock counts instructions (1 ns each): exact, and blind to caches
                            and to what entering and leaving a guest costs, which is one instruction there
    bench/net.py --kvm --clock host   the same by this machine's clock, which sees that cost, and noise; --pairs of them
    --pairs N  --seconds N  how much

Needs iperf3, wrk and ab."""
import argparse
import json
import os
import pathlib
import re
import shlex
import shutil
import statistics
import subprocess
import tempfile

from common import BIN, ROOT, TUNED, kernel, save

FIGURES = ("up_mbits", "down_mbits", "requests_alone", "requests", "connections")
PORT = 8081

INIT = """#!/bin/busybox sh
/bin/busybox mount -t proc none /proc; /bin/busybox mount -t sysfs none /sys; /bin/busybox mount -t devtmpfs none /dev
export PATH=/bin; /bin/busybox --install -s /bin
exec >/dev/ttyS0 2>&1 </dev/null
ip link set lo up; ip addr add 10.0.2.15/24 dev eth0; ip link set eth0 up; ip route add default via 10.0.2.2
# The server takes one client at a time, and may not have done with the last one yet.
rate() {
  for i in 1 2 3 4 5 6 7 8 9 10; do
    figure=$(iperf3 -c 10.0.2.2 -p 5201 -t SECONDS -f m "$@" | awk '/receiver/ { print $7 }')
    [ -n "$figure" ] && break
    sleep 0.3
  done
  echo $figure
}
rate >/dev/null
echo "FIGURE up_mbits $(rate)"
echo "FIGURE down_mbits $(rate -R)"
http_server 80 &
echo "SERVING now"
sleep 10000
"""

# $1: name; the rest: the monitor. Waits for the guest's server, then measures it from outside.
HOST = """
one() {
  name=$1; shift
  rm -f $name.out
  iperf3 -s -p 5201 >/dev/null 2>&1 & server=$!
  "$@" </dev/null >$name.out 2>&1 & monitor=$!
  i=0
  until grep -q SERVING $name.out 2>/dev/null; do
    i=$((i + 1)); [ $i -gt 3000 ] && break
    kill -0 $monitor 2>/dev/null || break
    sleep 0.1
  done
  wrk -t 1 -c 16 -d 1s http://127.0.0.1:PORT/ >/dev/null 2>&1
  echo "FIGURE requests_alone $(wrk -t 1 -c 1 -d SECONDSs http://127.0.0.1:PORT/ | awk '/^Requests.sec/ { print $2 }')" >>$name.out
  echo "FIGURE requests $(wrk -t 1 -c 16 -d SECONDSs http://127.0.0.1:PORT/ | awk '/^Requests.sec/ { print $2 }')" >>$name.out
  echo "FIGURE connections $(ab -q -n CONNECTIONS -c 16 http://127.0.0.1:PORT/ 2>/dev/null | awk '/^Requests per second/ { print $4 }')" >>$name.out
  kill -9 $monitor $server 2>/dev/null
  wait 2>/dev/null
  sed -n "s/^.*FIGURE /$name /p" $name.out | tr -d '\\r'
  grep -q SERVING $name.out || { echo "the guest of $name did not come up:"; tail -30 $name.out; }
}
"""


def monitors(accel, kernel_path, image, smol):
    """Shell words of both sides."""
    # Without the local APIC's timer the guest has none, and TCP is left without its own.
    cmdline = shlex.quote(TUNED.replace(" nolapic_timer", ""))
    peer = "tcg" if accel == "soft" else "kvm"
    mine = (f"{smol} --accel {accel} --tables mp --rng off --kernel {kernel_path} --initramfs {image} --memory size=256M --cmdline {cmdline} "
            f"--net mode=user,mac=52:54:00:12:34:56,publish=[tcp:127.0.0.1:{PORT}:80]")
    qemu = (f"qemu-system-x86_64 -M microvm,acpi=off,x-option-roms=off,rtc=off,pit=on,pic=on,isa-serial=on -global virtio-mmio.force-legacy=false -accel {peer} "
            f"-cpu {'max' if peer == 'tcg' else 'host'} -m 256 -nodefaults -no-user-config -display none -serial stdio -no-reboot "
            f"-kernel {kernel_path} -initrd {image} -append {cmdline} -netdev user,id=n,hostfwd=tcp:127.0.0.1:{PORT}-:80 "
            "-device virtio-net-device,netdev=n")
    return mine, qemu


def make_image(folder, seconds):
    root = folder / "root"
    for name in ("bin", "dev", "proc", "sys", "tmp", "etc"):
        (root / name).mkdir(parents=True)
    shutil.copy("/bin/busybox", root / "bin")
    shutil.copy(shutil.which("iperf3"), root / "bin")
    for library in set(re.findall(r"(/\S+) \(0x", subprocess.run(["ldd", shutil.which("iperf3")], check=True, capture_output=True, text=True).stdout)):
        target = root / library.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(library, target)
    subprocess.run(["cc", "-O2", "-static", "-o", root / "bin/http_server", ROOT / "bench/guest/http_server.c"], check=True)
    (root / "init").write_text(INIT.replace("SECONDS", str(seconds)))
    (root / "init").chmod(0o755)
    names = subprocess.run(["find", "."], cwd=root, check=True, capture_output=True).stdout
    image = folder / "net.cpio"
    with open(image, "wb") as out:
        subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], cwd=root, check=True, input=names, stdout=out)
    return image


def run_here(script, image, folder):
    mine, qemu = monitors("soft", kernel(), image, BIN / "smol-vmm")
    return subprocess.run(["sh", "-c", script + f"\none ours {mine}\none qemu {qemu}\n"], cwd=folder, check=True, stdout=subprocess.PIPE, text=True).stdout


def run_there(script, image, _, clock="count"):
    mine, qemu = monitors("kvm", "./vmlinux", "./net.cpio", "./smol-vmm")
    script = "cd /tmp; ln -s /host/* .\n" + script + f"\none ours {mine}\none qemu {qemu}\n"
    files = (f"{BIN}/smol-vmm", f"{kernel()}:/host/vmlinux", f"{image}:/host/net.cpio", *(shutil.which(tool) for tool in ("iperf3", "wrk", "ab")))
    words = [word for name in files for word in ("--file", name)]
    return subprocess.run([ROOT / "tools/benchhost", "--cpus", "1", *(["--count"] if clock == "count" else []), "--mem", "1536", "--timeout", "1500", "--with-qemu", *words,
                           "--", "sh", "-c", script], check=True, stdout=subprocess.PIPE, text=True).stdout


def figures_of(output):
    found = {"ours": {}, "qemu": {}}
    for line in output.splitlines():
        words = line.split()
        if len(words) == 3 and words[0] in found and words[1] in FIGURES:
            found[words[0]][words[1]] = float(words[2])
        else:
            print(line)
    return found


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kvm", action="store_true")
    parser.add_argument("--clock", choices=("count", "host"), default="count", help="with --kvm")
    parser.add_argument("--pairs", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3)
    options = parser.parse_args()
    script = HOST.replace("PORT", str(PORT)).replace("SECONDS", str(options.seconds)).replace("CONNECTIONS", "500" if options.kvm else "2000")
    pairs = []
    with tempfile.TemporaryDirectory(dir=os.environ.get("TMPDIR")) as name:
        folder = pathlib.Path(name)
        image = make_image(folder, options.seconds)
        for _ in range(1 if options.kvm and options.clock == "count" else options.pairs):
            pair = figures_of(run_there(script, image, folder, options.clock) if options.kvm else run_here(script, image, folder))
            print(json.dumps(pair))
            pairs.append(pair)
    result = {"pairs": pairs}
    for figure in FIGURES:
        both = [(pair["ours"][figure], pair["qemu"][figure]) for pair in pairs if all(pair[side].get(figure) for side in pair)]
        if both:
            result[figure] = {"ours": statistics.median(a for a, _ in both), "qemu": statistics.median(b for _, b in both),
                              "ratio": statistics.median(a / b for a, b in both)}
            print(f"{figure:14} ours {result[figure]['ours']:10.1f}   QEMU {result[figure]['qemu']:10.1f}   ratio {result[figure]['ratio']:.2f}")
        else:
            print(f"{figure:14} not measured on both sides")
    save(f"net_kvm_{options.clock}" if options.kvm else "net", result)


if __name__ == "__main__":
    main()
