#!/usr/bin/env python3
"""A static HTTP echo server as a capsule: file size, from its start to the first HTTP answer beside QEMU's TCG microvm with the same kernel
and init, and idle memory (Pss) by process. QEMU gets the server inside the initial root file system, since init's protocol for a root on a
disk needs a socket device that QEMU does not have by itself: so it has a little less to do."""
import os
import pathlib
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


def main():
    folder = pathlib.Path(tempfile.mkdtemp(prefix="smol-bench-"))
    prepare(folder)
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
    result = {"file_bytes": (folder / "app").stat().st_size, "pairs": pairs, "median_ratio": statistics.median(p["ratio"] for p in pairs),
              "idle": idle, "idle_pss_kib": sum(p["pss_kib"] for p in idle),
              "idle_own_kib": sum(p["pss_kib"] - p["guest_kib"] for p in idle)}
    shutil.rmtree(folder)
    print(f"file {result['file_bytes']} bytes; median ratio {result['median_ratio']:.3f}; idle Pss {result['idle_pss_kib']} KiB, "
          f"{result['idle_own_kib']} KiB of it not the guest's memory: {idle}")
    save("capsule", result)


if __name__ == "__main__":
    main()
