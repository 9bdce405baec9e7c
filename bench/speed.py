#!/usr/bin/env python3
"""How quick the software CPU is inside a Linux guest, beside QEMU TCG and the host: one static program of workloads (guest/workloads.c).
Instruction counts are exact (deterministic mode, where the TSC counts instructions); times are the best iteration of each side."""
import json
import shutil
import subprocess
import sys

from common import ROOT, TUNED, kernel, ours, qemu, save, with_file

MEMORY = 256


def lines_of(output):
    found = {}
    for line in output.splitlines():
        if line.startswith("{\"name\""):
            entry = json.loads(line)
            found[entry["name"]] = entry
    return found


def run(command, timeout=600):
    done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True, errors="replace", timeout=timeout)
    found = lines_of(done.stdout)
    if not found:
        raise SystemExit(f"{command[0]} gave no figures:\n{done.stdout[-2000:]}")
    return found


def main():
    names = sys.argv[1:]
    build = ROOT / "build/bench"
    build.mkdir(parents=True, exist_ok=True)
    program = build / "workloads"
    subprocess.run(["cc", "-O2", "-static", "-o", program, ROOT / "bench/guest/workloads.c"], check=True)
    folder, image = with_file(program, "workloads")
    try:
        def line(milliseconds):
            return f"{TUNED} smol.exec=/workloads -- {milliseconds} " + " ".join(names)
        counts = run(ours(kernel(), image, line(1), MEMORY, extra=["--deterministic"]))
        mine = run(ours(kernel(), image, line(300), MEMORY))
        peer = run(qemu(kernel(), image, line(300), MEMORY))
        native = run([program, "300", *names])
    finally:
        shutil.rmtree(folder)
    rows = []
    print(f"{'workload':16} {'M instr/s':>9} {'ours us':>10} {'TCG us':>10} {'native us':>10} {'ours/TCG':>9}")
    for name, entry in mine.items():
        instructions = counts[name]["ticks"]
        row = {"name": name, "instructions": instructions, "ours_ns": entry["best_ns"], "tcg_ns": peer[name]["best_ns"],
               "native_ns": native[name]["best_ns"], "mips": instructions * 1e3 / entry["best_ns"],
               "ratio_to_tcg": entry["best_ns"] / peer[name]["best_ns"]}
        rows.append(row)
        print(f"{name:16} {row['mips']:9.0f} {row['ours_ns'] / 1e3:10.1f} {row['tcg_ns'] / 1e3:10.1f} {row['native_ns'] / 1e3:10.2f} "
              f"{row['ratio_to_tcg']:9.2f}")
    save("speed", {"workloads": rows})


if __name__ == "__main__":
    main()
