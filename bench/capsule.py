#!/usr/bin/env python3
"""A static HTTP echo server as a capsule: file size, from its start to the first HTTP answer beside QEMU's TCG microvm with the same kernel
and init, and idle memory (Pss) by process. QEMU gets the server inside the initial root file system, since init's protocol for a root on a
disk needs a socket device that QEMU does not have by itself: so it has a little less to do.

    bench/capsule.py          the software CPU beside TCG
    bench/capsule.py --kvm    on KVM in the bench host, whose clock counts instructions (1 ns each)"""
import argparse
import os
import pathlib
import shlex
import shutil
import signal
import socket
import statistics
import subprocess
import tempfile
import time
import urllib.request

from common import BIN, ROOT, TUNED, kernel, qemu, save

PAIRS = 5
MEMORY = 64
IDLE_SECONDS = 14


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def first_answer(command, port):
    """Seconds to the first answer; the process that answered still runs."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True)
    seen = b""
    while b"listening on" not in seen:
        part = os.read(process.stdout.fileno(), 65536)
        if not part:
            raise SystemExit(f"{command[0]} ended:\n{seen.decode(errors='replace')}")
        seen += part
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/", timeout=10) as answer:
        assert answer.read() == b"GET / HTTP/1.1\n"
    return time.monotonic() - start, process


def end(process):
    os.killpg(process.pid, signal.SIGTERM)
    process.wait()
    process.stdout.close()


def memory(session):
    """KiB by process of the session: all of Pss, and what of it is the guest's memory."""
    found = []
    for entry in pathlib.Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if os.getsid(int(entry.name)) != session:
                continue
            guest, whole, mapping = 0, 0, ""  # KiB
            for line in (entry / "smaps").read_text().splitlines():
                word = line.split()
                if not word[0].endswith(":"):
                    mapping = line
                elif word[0] == "Pss:":
                    whole += int(word[1])
                    guest += int(word[1]) if "guest-memory" in mapping else 0
            found.append({"pss_kib": whole, "guest_kib": guest})
        except OSError:
            continue
    return found


def prepare(folder):
    (folder / "root").mkdir()
    subprocess.run(["musl-gcc", "-D_GNU_SOURCE", "-static", "-Os", "-s", "-o", folder / "root/echo_server",
                    ROOT / "tests/integration/echo_server.c"], check=True)
    subprocess.run([BIN / "smolvm", "pack", "create", "--rootfs", folder / "root", "--mem", str(MEMORY), "--entrypoint", "/echo_server",
                    "-o", folder / "app"], check=True, stdout=subprocess.DEVNULL)
    init = (ROOT / "build/release/guest/init.cpio").read_bytes()
    more = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], input=b"echo_server", cwd=folder / "root", check=True,
                          capture_output=True).stdout
    (folder / "qemu.cpio").write_bytes(init + b"\0" * (-len(init) % 4) + more)


# Both sides in turns, then the capsule's memory: Pss of its processes, and of the mapping that is the guest's.
THERE = """
cd /tmp; ln -s /host/* .; export TIME_TO_HTTP=8081
for i in $(seq PAIRS); do
  echo "ours $(./time_to 'listening on' ./app run --accel kvm -p 8081:8080)"; sleep 0.5
  echo "qemu $(./time_to 'listening on' QEMU)"; sleep 0.5
done
./app run --accel kvm -p 8081:8080 </dev/null >out 2>&1 &
until grep -q listening out; do sleep 0.1; done
sleep IDLE
for process in $(pidof app); do
  awk '/-/ { big = 0 } /^Size:/ { big = $2 >= MEMORY * 1024 } /^Pss:/ { whole += $2; if (big) guest += $2 } END { print "idle", whole + 0, guest + 0 }' /proc/$process/smaps
done
kill $(pidof app)
"""


def there(folder):
    # Without ACPI, QEMU names its devices on the command line, as this kernel wants them.
    command = [word.replace("microvm,", "microvm,acpi=off,") for word in
               qemu("./vmlinux", "./qemu.cpio", f"{TUNED.replace(' nolapic_timer', '')} ECHO_INTERFACE=eth0 smol.exec=/echo_server", MEMORY, "kvm")]
    command += ["-netdev", "user,id=net,hostfwd=tcp:127.0.0.1:8081-:8080", "-device", "virtio-net-device,netdev=net"]
    script = (THERE.replace("QEMU", shlex.join(command)).replace("PAIRS", str(PAIRS)).replace("IDLE", str(IDLE_SECONDS))
              .replace("MEMORY", str(MEMORY)))
    subprocess.run(["cc", "-O2", "-static", "-o", folder / "time_to", ROOT / "bench/guest/time_to.c"], check=True)
    files = [f"{folder}/app", f"{folder}/time_to", f"{folder}/qemu.cpio:/host/qemu.cpio", f"{kernel()}:/host/vmlinux"]
    output = subprocess.run([ROOT / "tools/benchhost", "--cpus", "1", "--count", "--mem", "1024", "--timeout", "900", "--with-qemu",
                             *(word for file in files for word in ("--file", file)), "--", "sh", "-c", script],
                            check=True, stdout=subprocess.PIPE, text=True).stdout
    lines = [line.split() for line in output.splitlines()]
    times = {side: [int(words[1]) / 1e6 for words in lines if words[0] == side] for side in ("ours", "qemu")}
    if [len(each) for each in times.values()] != [PAIRS, PAIRS]:
        raise SystemExit("a start failed:\n" + output)
    pairs = [{"ours_ms": a, "qemu_ms": b, "ratio": a / b} for a, b in zip(times["ours"], times["qemu"], strict=True)]
    for pair in pairs:
        print(f"ours {pair['ours_ms']:7.1f} ms   QEMU on KVM {pair['qemu_ms']:7.1f} ms   ratio {pair['ratio']:.2f}")
    return pairs, [{"pss_kib": int(words[1]), "guest_kib": int(words[2])} for words in lines if words[0] == "idle"]


def here(folder):
    pairs, idle = [], []
    for number in range(PAIRS):
        port = free_port()
        mine, process = first_answer([str(folder / "app"), "run", "--accel", "soft", "-p", f"{port}:8080"], port)
        if number == 0:
            time.sleep(IDLE_SECONDS)
            idle = memory(process.pid)
        end(process)
        port = free_port()
        peer, process = first_answer(
            # Without ACPI, QEMU names its devices on the command line, as this kernel wants them.
            [word.replace("microvm,", "microvm,acpi=off,") for word in qemu(kernel(), folder / "qemu.cpio", f"{TUNED} ECHO_INTERFACE=eth0 smol.exec=/echo_server", MEMORY)] +
            ["-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{port}-:8080", "-device", "virtio-net-device,netdev=net"], port)
        end(process)
        pairs.append({"ours_ms": mine * 1e3, "qemu_ms": peer * 1e3, "ratio": mine / peer})
        print(f"ours {mine * 1e3:7.1f} ms   QEMU TCG {peer * 1e3:7.1f} ms   ratio {mine / peer:.2f}")
    return pairs, idle


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--kvm", action="store_true")
    options = parser.parse_args()
    folder = pathlib.Path(tempfile.mkdtemp(prefix="smol-bench-"))
    prepare(folder)
    pairs, idle = (there if options.kvm else here)(folder)
    result = {"file_bytes": (folder / "app").stat().st_size, "pairs": pairs, "median_ratio": statistics.median(p["ratio"] for p in pairs),
              "idle": idle, "idle_pss_kib": sum(p["pss_kib"] for p in idle),
              "idle_own_kib": sum(p["pss_kib"] - p["guest_kib"] for p in idle)}
    shutil.rmtree(folder)
    print(f"file {result['file_bytes']} bytes; median ratio {result['median_ratio']:.3f}; idle Pss {result['idle_pss_kib']} KiB, "
          f"{result['idle_own_kib']} KiB of it not the guest's memory: {idle}")
    save("capsule_kvm" if options.kvm else "capsule", result)


if __name__ == "__main__":
    main()
