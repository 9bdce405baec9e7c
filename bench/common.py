"""What the benchmarks share: paths, peers, JSON output."""
import json
import os
import pathlib
import shutil
import subprocess
import tempfile
import time

ROOT = pathlib.Path(__file__).resolve().parents[1]
BIN = ROOT / "build/bin"
IMAGE = ROOT / "build/release/guest/image.cpio"
HELLO = b"smol-init: ready"
# The command line that QEMU boots quickest with; the same for both sides of every comparison.
TUNED = ("console=ttyS0 quiet reboot=t panic=-1 tsc_early_khz=1000000 lpj=10000000 no_timer_check nolapic_timer")


def kernel(name="micro"):
    return subprocess.run([BIN / "smolvm", "kernel", "path", name], check=True, capture_output=True, text=True).stdout.strip()


def ours(kernel_path, initrd, cmdline, memory, accel="soft", extra=()):
    return [str(BIN / "smol-vmm"), "--accel", accel, "--tables", "mp", "--rng", "off", "--kernel", kernel_path, "--initramfs",
            str(initrd), "--memory", f"size={memory}M", "--cmdline", cmdline, *extra]


def qemu(kernel_path, initrd, cmdline, memory, accel="tcg"):
    cpu = "max" if accel == "tcg" else "host"
    return ["qemu-system-x86_64", "-M", "microvm,x-option-roms=off,rtc=off,pit=on,pic=on,isa-serial=on", "-accel", accel, "-cpu", cpu,
            "-m", str(memory), "-nodefaults", "-no-user-config", "-display", "none", "-serial", "stdio", "-no-reboot", "-kernel",
            kernel_path, "-initrd", str(initrd), "-append", cmdline]


def time_to(command, mark=HELLO, timeout=120):
    """Seconds from the start of the command to the mark in its output; the process is killed then."""
    start = time.monotonic()
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    seen = b""
    try:
        while mark not in seen:
            part = os.read(process.stdout.fileno(), 65536)
            if not part:
                raise SystemExit(f"{command[0]} ended before the mark:\n{seen.decode(errors='replace')}")
            seen += part
            if time.monotonic() - start > timeout:
                raise SystemExit(f"{command[0]}: no mark in {timeout} s")
        return time.monotonic() - start
    finally:
        process.kill()
        process.wait()


def save(name, result):
    out = ROOT / "build/bench"
    out.mkdir(parents=True, exist_ok=True)
    path = out / f"{name}.json"
    path.write_text(json.dumps(result, indent=2) + "\n")
    print(f"written: {path.relative_to(ROOT)}")


def with_file(program, name):
    """The default image with one more program in it, as a temporary initial root file system."""
    folder = pathlib.Path(tempfile.mkdtemp(prefix="smol-bench-"))
    tree = folder / "tree"
    tree.mkdir()
    shutil.copy(program, tree / name)
    archive = subprocess.run(["cpio", "-o", "-H", "newc", "--quiet"], input=name.encode(), cwd=tree, check=True,
                             capture_output=True).stdout
    path = folder / "image.cpio"
    base = IMAGE.read_bytes()
    path.write_bytes(base + b"\0" * (-len(base) % 4) + archive)
    return folder, path
