#!/usr/bin/env python3
"""Boot time on the software CPU beside QEMU TCG: the micro kernel to init's first line, same kernel, image, command line and memory, in
pairs; the ratio's median. Also the exact count of guest instructions to init."""
import json
import pathlib
import statistics
import tempfile

import subprocess

from common import IMAGE, TUNED, kernel, ours, qemu, save, time_to

PAIRS = 10
MEMORY = 64


def instructions(cmdline):
    with tempfile.TemporaryDirectory() as folder:
        stats = pathlib.Path(folder) / "stats.json"
        subprocess.run(ours(kernel(), IMAGE, cmdline, MEMORY, extra=["--stats", str(stats)]), stdin=subprocess.DEVNULL,
                       stdout=subprocess.DEVNULL, check=False, timeout=120)
        return json.loads(stats.read_text())


def main():
    cmdline = TUNED + " smol.hello smol.exec=/bin/true"
    pairs = []
    for _ in range(PAIRS):
        mine = time_to(ours(kernel(), IMAGE, cmdline, MEMORY))
        peer = time_to(qemu(kernel(), IMAGE, cmdline, MEMORY))
        pairs.append({"ours_ms": mine * 1e3, "qemu_ms": peer * 1e3, "ratio": mine / peer})
        print(f"ours {mine * 1e3:7.1f} ms   QEMU TCG {peer * 1e3:7.1f} ms   ratio {mine / peer:.2f}")
    stats = instructions(TUNED + " smol.exec=/bin/true")
    result = {"pairs": pairs, "median_ratio": statistics.median(p["ratio"] for p in pairs),
              "median_ours_ms": statistics.median(p["ours_ms"] for p in pairs),
              "median_qemu_ms": statistics.median(p["qemu_ms"] for p in pairs),
              "guest_instructions_to_init": stats["guest_instructions_to_init"], "exits_to_init": stats["exits_to_init"]}
    print(f"median ratio {result['median_ratio']:.3f}, guest instructions to init {result['guest_instructions_to_init']}")
    save("boot", result)


if __name__ == "__main__":
    main()
