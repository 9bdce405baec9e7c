"""A Debian root file system for tests: made once by mmdebstrap, kept in the cache under its inputs.

What it gives: the path of an ext4 image, and the output of tests/integration/debian_commands.sh when that root runs
under this host's kernel (a chroot in a user namespace or as root). Packages come from wherever this host's apt gets them.
"""
import fcntl
import glob
import hashlib
import os
import shutil
import subprocess
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
COMMANDS = os.path.join(HERE, "debian_commands.sh")
SUITE = "bookworm"
PACKAGES = ["bash", "ca-certificates", "gcc", "libc6-dev", "openssl", "perl", "python3", "sqlite3"]


def cache_root():
    base = os.environ.get("SMOL_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "smol")
    path = os.path.join(base, "debian-root")
    os.makedirs(path, exist_ok=True)
    return path


def read(path):
    with open(path, "rb") as file:
        return file.read()


def apt_sources():
    return [path for path in ["/etc/apt/sources.list", *sorted(glob.glob("/etc/apt/sources.list.d/*.list")),
                              *sorted(glob.glob("/etc/apt/sources.list.d/debian.sources"))]
            if os.path.exists(path) and read(path).strip()]


def cached(name, inputs, make):
    """The folder that `make(folder)` fills, made at most once for these inputs."""
    key = hashlib.sha256("\0".join([name, *inputs]).encode()).hexdigest()[:20]
    target = os.path.join(cache_root(), f"{name}-{key}")
    with open(target + ".lock", "w", encoding="utf-8") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not os.path.isdir(target):
            work = tempfile.mkdtemp(dir=cache_root(), prefix=".making-")
            try:
                make(work)
                os.rename(work, target)
            finally:
                shutil.rmtree(work, ignore_errors=True)
    return target


def bootstrap(folder):
    root, log_path = os.path.join(folder, "root"), os.path.join(folder, "log")
    with open(log_path, "wb") as log:
        command = ["mmdebstrap", "--variant=essential", f"--include={','.join(PACKAGES)}", SUITE, root, *apt_sources()]
        if subprocess.run(command, stdout=log, stderr=log, check=False).returncode != 0:
            raise RuntimeError("mmdebstrap: " + read(log_path)[-1500:].decode(errors="replace"))
    for name in ("var/cache/apt", "var/lib/apt/lists", "usr/share/doc", "usr/share/locale"):
        shutil.rmtree(os.path.join(root, name), ignore_errors=True)


def run_here(root):
    """The commands' output under this host's kernel."""
    script = ('mount -t proc proc "$0/proc" && mount --rbind /dev "$0/dev" && exec chroot "$0" /usr/bin/env -i HOME=/root '
              'PATH=/usr/bin:/bin LC_ALL=C bash /commands.sh')
    done = subprocess.run(["unshare", "--mount", "--pid", "--fork", "sh", "-c", script, root], capture_output=True, check=False,
                          stdin=subprocess.DEVNULL)
    if done.returncode != 0:
        raise RuntimeError(f"the commands fail in a chroot: {done.stderr[-1500:]!r} after {done.stdout[-500:]!r}")
    return done.stdout


def make_image(folder, tree):
    root = os.path.join(tree, "root")
    shutil.copy(COMMANDS, os.path.join(root, "commands.sh"))
    with open(os.path.join(folder, "expected"), "wb") as file:
        file.write(run_here(root))
    image = os.path.join(folder, "root.ext4")
    with open(image, "wb") as file:
        file.truncate(1 << 30)
    subprocess.run(["mke2fs", "-q", "-t", "ext4", "-d", root, image], check=True)


def debian_root():
    """(image, expected output)."""
    tree = cached("tree", [SUITE, *PACKAGES, *apt_sources()], bootstrap)
    entry = cached("image", [tree, read(COMMANDS).decode(), read(os.path.abspath(__file__)).decode()],
                   lambda folder: make_image(folder, tree))
    return os.path.join(entry, "root.ext4"), read(os.path.join(entry, "expected"))


if __name__ == "__main__":
    print(debian_root()[0])
