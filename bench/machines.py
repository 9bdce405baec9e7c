#!/usr/bin/env python3
"""What a user waits for, and what a machine costs while it idles: exec in a running machine, `machine run -- true` from end to end beside
QEMU's microvm with the same kernel and init on the same accelerator, and MACHINES idle machines at once."""
import argparse
import json
import os
import pathlib
import statistics
import subprocess
import tempfile
import time

from common import BIN, IMAGE, TUNED, kernel, qemu, save

SMOLVM = str(BIN / "smolvm")


def percentiles(seconds):
    ordered = sorted(seconds)
    return {"p50_ms": statistics.median(ordered) * 1e3, "p99_ms": ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))] * 1e3}


def timed(command, env, **options):
    start = time.monotonic()
    subprocess.run(command, env=env, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, **options)
    return time.monotonic() - start


def smolvm(env, *words):
    return subprocess.run([SMOLVM, "machine", *words], env=env, check=True, capture_output=True, text=True, stdin=subprocess.DEVNULL).stdout


def qemu_run():
    command = qemu(kernel(), IMAGE, TUNED + " smol.exec=/bin/true", 256)
    start = time.monotonic()
    subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
    return time.monotonic() - start


def round_trips(env, execs, runs):
    smolvm(env, "create", "--name", "bench")
    smolvm(env, "start", "bench")
    result = {"exec": percentiles([timed([SMOLVM, "machine", "exec", "--name", "bench", "--", "/bin/true"], env) for _ in range(execs)])}
    smolvm(env, "stop", "bench")
    ours, peer = [], []
    for i in range(runs):
        ours.append(timed([SMOLVM, "machine", "run", "--", "true"], env))
        if i % 5 == 0:
            peer.append(qemu_run())
    result["run"] = percentiles(ours)
    result["qemu_run"] = percentiles(peer)
    result["run_ratio_p50"] = result["run"]["p50_ms"] / result["qemu_run"]["p50_ms"]
    result["exec_ratio_p50"] = result["exec"]["p50_ms"] / result["qemu_run"]["p50_ms"]
    return result


def monitors(env):
    return [machine["pid"] for machine in json.loads(smolvm(env, "ls", "--json")) if machine["pid"]]


def pss_kib(pid):
    """All, and that without guest memory."""
    total, own, guest = 0, 0, False
    for line in pathlib.Path(f"/proc/{pid}/smaps").read_text().splitlines():
        key, _, rest = line.partition(":")
        if "-" in key and not key.startswith(("Shared", "Private")):  # a mapping's first line
            guest = "guest-memory" in line
        elif key == "Pss":
            total += int(rest.split()[0])
            own += 0 if guest else int(rest.split()[0])
    return total, own


def ticks(pid):
    fields = pathlib.Path(f"/proc/{pid}/stat").read_text().rsplit(") ", 1)[1].split()
    return int(fields[11]) + int(fields[12])


def idle(env, count, seconds):
    for i in range(count):
        smolvm(env, "create", "--name", f"idle{i}", "--mem", "64")
        smolvm(env, "start", f"idle{i}")
    pids = monitors(env)
    time.sleep(15)
    before = sum(ticks(pid) for pid in pids)
    time.sleep(seconds)
    used = (sum(ticks(pid) for pid in pids) - before) / os.sysconf("SC_CLK_TCK")
    memory = [pss_kib(pid) for pid in pids]
    for i in range(count):
        smolvm(env, "delete", "-f", f"idle{i}")
    return {"machines": len(pids), "pss_kib": statistics.median(m[0] for m in memory), "own_pss_kib": statistics.median(m[1] for m in memory),
            "cpu_percent_each": 100 * used / seconds / len(pids)}


def show_idle(result):
    print(f"{result['machines']} idle machines: Pss {result['pss_kib'] / 1024:.1f} MiB each, of it the monitor's own "
          f"{result['own_pss_kib'] / 1024:.1f} MiB; CPU {result['cpu_percent_each']:.2f} % of a core each")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--execs", type=int, default=200)
    parser.add_argument("--runs", type=int, default=50)
    parser.add_argument("--machines", type=int, default=50)
    parser.add_argument("--seconds", type=int, default=20)
    parser.add_argument("--idle-only", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        env = dict(os.environ, SMOLVM_DATA_DIR=folder, XDG_RUNTIME_DIR=folder)
        if options.idle_only:
            return show_idle(idle(env, options.machines, options.seconds))
        result = round_trips(env, options.execs, options.runs)
        print(f"exec /bin/true: p50 {result['exec']['p50_ms']:.1f} ms, p99 {result['exec']['p99_ms']:.1f} ms")
        print(f"machine run -- true: p50 {result['run']['p50_ms']:.0f} ms, p99 {result['run']['p99_ms']:.0f} ms; QEMU microvm "
              f"{result['qemu_run']['p50_ms']:.0f} ms; ratio {result['run_ratio_p50']:.2f}")
        result["idle"] = idle(env, options.machines, options.seconds)
        show_idle(result["idle"])
    save("machines", result)


if __name__ == "__main__":
    main()
