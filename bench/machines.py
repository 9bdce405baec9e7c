#!/usr/bin/env python3
"""What a user waits for, and what a machine costs while it idles: exec in a running machine, `machine run -- true` from end to end beside
QEMU's microvm with the same kernel and init on the same accelerator, and MACHINES idle machines at once.

    bench/machines.py           software CPU beside TCG, on this machine's clock
    bench/machines.py --kvm     kvm-amd in the bench host, whose clock counts instructions (1 ns each); no idle machines"""
import argparse
import json
import os
import pathlib
import shlex
import statistics
import subprocess
import tempfile
import time

from common import BIN, IMAGE, ROOT, TUNED, kernel, qemu, save

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


KVM_SCRIPT = """
set -e
export SMOLVM_SHARE=/host SMOLVM_DATA_DIR=/tmp/data XDG_RUNTIME_DIR=/tmp/run HOME=/tmp; mkdir -p /tmp/data /tmp/run
time_runs 1 ./smolvm machine run --accel kvm -- true >/dev/null; time_runs 1 {peer} >/dev/null
./smolvm machine create --accel kvm --name bench >/dev/null; ./smolvm machine start bench >/dev/null
echo exec; time_runs {execs} ./smolvm machine exec --name bench -- /bin/true
./smolvm machine stop bench >/dev/null
echo run; time_runs {runs} ./smolvm machine run --accel kvm -- true
echo qemu_run; time_runs {runs} {peer}
"""


def round_trips_on_kvm(execs, runs, folder):
    tool = pathlib.Path(folder) / "time_runs"
    subprocess.run(["cc", "-O2", "-static", "-o", tool, ROOT / "bench/guest/time_runs.c"], check=True)
    cmdline = TUNED.replace(" nolapic_timer", "") + " smol.exec=/bin/true"
    peer = shlex.join(qemu("./vmlinux-micro", "./image.cpio", cmdline, 256, "kvm"))
    files = [str(tool), SMOLVM, f"{BIN}/smol-vmm", f"{kernel()}:/host/vmlinux-micro", f"{IMAGE}:/host/image.cpio"]
    words = [word for name in files for word in ("--file", name)]
    lines = subprocess.run([ROOT / "tools/benchhost", "--cpus", "1", "--count", "--mem", "1536", "--timeout", "1800", "--with-qemu", *words, "--",
                            "sh", "-c", KVM_SCRIPT.format(peer=peer, execs=execs, runs=runs)],
                           check=True, stdout=subprocess.PIPE, text=True).stdout.split()
    times = {}
    for line in lines:
        if line.isdigit():
            times[name].append(int(line) / 1e9)
        else:
            name = line
            times[name] = []
    result = {name: percentiles(seconds) for name, seconds in times.items()}
    for percentile in ("p50", "p99"):
        for name in ("run", "exec"):
            result[f"{name}_ratio_{percentile}"] = result[name][f"{percentile}_ms"] / result["qemu_run"][f"{percentile}_ms"]
    return result


def show_round_trips(result):
    print(f"exec /bin/true: p50 {result['exec']['p50_ms']:.1f} ms, p99 {result['exec']['p99_ms']:.1f} ms")
    print(f"machine run -- true: p50 {result['run']['p50_ms']:.0f} ms, p99 {result['run']['p99_ms']:.0f} ms; QEMU microvm p50 "
          f"{result['qemu_run']['p50_ms']:.0f} ms, p99 {result['qemu_run']['p99_ms']:.0f} ms; ratio at p50 {result['run_ratio_p50']:.2f}")


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
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kvm", action="store_true")
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
        if options.kvm:
            result = round_trips_on_kvm(options.execs, options.runs, folder)
            show_round_trips(result)
            return save("machines_kvm", result)
        result = round_trips(env, options.execs, options.runs)
        show_round_trips(result)
        result["idle"] = idle(env, options.machines, options.seconds)
        show_idle(result["idle"])
    save("machines", result)


if __name__ == "__main__":
    main()
