#!/usr/bin/env python3
"""Disk throughput beside QEMU's virtio-blk: fio in the same guest (kernel, initial root, fio's own image), the same
image file in the host's page cache, the same accelerator: our software CPU beside TCG here, or KVM for both in the bench host
(--kvm). The two take turns, and each figure is the median of the turns."""
import argparse
import pathlib
import re
import shlex
import shutil
import statistics
import subprocess
import tempfile

from common import BIN, ROOT, TUNED, kernel, ours, qemu, save, with_file

DISK_MIB = 256
MEMORY = 192
JOBS = {  # name: fio's words, the figure's place in a line of terse output, version 3
    "random read 4k (IOPS)": ("--rw=randread --bs=4k --iodepth=16", 7),
    "sequential read 1M (KiB/s)": ("--rw=read --bs=1M --iodepth=4", 6),
    "random write 4k (IOPS)": ("--rw=randwrite --bs=4k --iodepth=16", 48),
    "sequential write 1M (KiB/s)": ("--rw=write --bs=1M --iodepth=4", 47),
}


def make_tools(folder, seconds):
    """An ext4 image with fio, its libraries, and the script that runs it."""
    tree = folder / "tools"
    for name in ("bin", "dev", "proc", "sys", "tmp"):
        (tree / name).mkdir(parents=True)
    fio = shutil.which("fio")
    shutil.copy(fio, tree / "bin/fio")
    for path in re.findall(r"(/\S+) \(0x", subprocess.run(["ldd", fio], check=True, capture_output=True, text=True).stdout):
        target = tree / path.lstrip("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    lines = ["DISK=/dev/vdb; [ -e /sys/block/vdb ] && grep -q vdb /proc/mounts && DISK=/dev/vda; mount -t proc proc /mnt/proc; mount -t sysfs sysfs /mnt/sys; mount -t devtmpfs dev /mnt/dev; mount -t tmpfs tmp /mnt/tmp"]
    for words, _ in JOBS.values():
        lines.append(f"chroot /mnt /bin/fio --name=job --filename=$DISK --direct=1 --ioengine=libaio --thread {words} "
                     f"--size={DISK_MIB}M --runtime={seconds} --time_based --ramp_time=1 --output-format=terse --terse-version=3")
    (tree / "bench.sh").write_text("cd /tmp\n" + "\n".join(lines) + "\necho bench-end\n")
    (folder / "bench").write_text(SCRIPT)
    (folder / "bench").chmod(0o755)
    image = folder / "tools.img"
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", tree, image, "160M"], check=True)
    return image


# Sleeping needs a timer interrupt, for which QEMU's quickest boot has none here. QEMU's microvm puts its devices behind the
# command line's end, so nothing of init's own may be there: what init runs is a script in the initial root.
CMDLINE = TUNED.replace(" nolapic_timer", "") + " smol.exec=/bench"
SCRIPT = "#!/bin/sh\nmount -o ro /dev/vda /mnt || mount -o ro /dev/vdb /mnt || exit\n. /mnt/bench.sh\n"


def our_command(binary, kernel_path, initrd, tools, disk, accel, cmdline, options):
    command = ours(kernel_path, initrd, cmdline, MEMORY, accel, ["--disk", f"path={tools},readonly=on,image_type=raw", "--disk",
                                                                 f"path={disk},image_type=raw{options}"])
    return [binary, *command[1:]]


def qemu_command(kernel_path, initrd, tools, disk, accel, cmdline):
    command = qemu(kernel_path, initrd, cmdline, MEMORY, accel)
    command[2] += ",acpi=off"  # its devices on the command line, as ours
    return [*command, "-drive", f"if=none,id=b,file={disk},format=raw", "-drive", f"if=none,id=a,file={tools},format=raw,readonly=on",
            "-device", "virtio-blk-device,drive=a", "-device", "virtio-blk-device,drive=b"]


def figures(text, who):
    lines = [line for line in text.replace("\r", "").splitlines() if re.match(r"3;fio-", line)]
    if len(lines) != len(JOBS):
        raise SystemExit(f"{who}: {len(lines)} of {len(JOBS)} jobs gave a result:\n{text[-3000:]}")
    return {name: float(line.split(";")[place]) for line, (name, (_, place)) in zip(lines, JOBS.items(), strict=True)}


def here(args, folder, tools, initrd):
    disk = folder / "disk.img"
    disk.write_bytes(bytes(range(256)) * (DISK_MIB * 4096))
    runs = {"ours": [], "qemu": []}
    for _ in range(args.rounds):
        for who, command in (("ours", our_command(str(BIN / "smol-vmm"), kernel(args.kernel), initrd, tools, disk, "soft", CMDLINE, args.options)),
                             ("qemu", qemu_command(kernel(args.kernel), initrd, tools, disk, "tcg", CMDLINE))):
            done = subprocess.run(command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=180, check=False)
            runs[who].append(figures(done.stdout.decode(errors="replace"), who))
    return runs


def there(args, tools, initrd):
    names = ["/host/vmlinux", "/host/image.cpio", "/host/tools.img", "/tmp/disk.img", "kvm", CMDLINE]
    lines = [f"yes smolvm | head -c {DISK_MIB << 20} >/tmp/disk.img"]
    for _ in range(args.rounds):
        lines.append("echo == ours; " + shlex.join(our_command("/host/smol-vmm", *names, args.options)) + " </dev/null 2>&1")
        peer = qemu_command(*names)
        lines.append("echo == qemu; " + shlex.join(peer) + " </dev/null 2>&1")
    files = {BIN / "smol-vmm": "smol-vmm", kernel(args.kernel): "vmlinux", initrd: "image.cpio", tools: "tools.img"}
    words = [word for path, name in files.items() for word in ("--file", f"{path}:/host/{name}")]
    done = subprocess.run([ROOT / "tools/benchhost", "--cpus", "1", "--timeout", str(args.timeout), "--mem", "2560", "--with-qemu", *words,
                           "--", "sh", "-c", "\n".join(lines)], stdout=subprocess.PIPE, text=True, errors="replace", check=False)
    runs = {"ours": [], "qemu": []}
    for part in ("\n" + done.stdout).split("\n== ")[1:]:
        who, _, text = part.partition("\n")
        runs[who].append(figures(text, who))
    return runs


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kvm", action="store_true", help="in the bench host, on KVM")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--seconds", type=int, default=3, help="of each job")
    parser.add_argument("--kernel", default="full")
    parser.add_argument("--options", default="", help="more for our --disk, as ,num_queues=2")
    parser.add_argument("--timeout", type=int, default=1800)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="smol-bench-") as name:
        folder = pathlib.Path(name)
        tools = make_tools(folder, args.seconds)
        extra, initrd = with_file(folder / "bench", "bench")
        try:
            runs = there(args, tools, initrd) if args.kvm else here(args, folder, tools, initrd)
        finally:
            shutil.rmtree(extra)
    result = {"accelerator": "kvm" if args.kvm else "software", "runs": runs, "ratio": {}}
    for job in JOBS:
        our, peer = (statistics.median(run[job] for run in runs[who]) for who in ("ours", "qemu"))
        result["ratio"][job] = our / peer
        print(f"{job}: ours {our:.0f}, QEMU {peer:.0f}, ratio {our / peer:.2f}")
    save("disk-kvm" if args.kvm else "disk", result)


if __name__ == "__main__":
    main()
