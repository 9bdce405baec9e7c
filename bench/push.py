#!/usr/bin/env python3
"""What the second push of a layered image costs: `pack create -I` of an OCI image of several layers, pushed to Debian's docker-registry, then
the same with one layer changed.

usage: bench/push.py [MIB] [CHANGED_MIB]

MIB (default 1024) in five layers, of which the one in the middle, CHANGED_MIB (default 200) large, is another one in the second version: all
its files have other bytes and sizes, and names come and go. Counted are the bytes that a proxy between smolvm and the registry sees, with
all of HTTP. `ratio` is bytes on the wire by bytes of the changed files; nothing in it can be compressed.
"""
import atexit
import os
import subprocess
import sys
import tempfile
import time

from common import BIN, ROOT, save

sys.path.insert(0, str(ROOT / "tests/integration"))
import registry  # noqa: E402
from changed_image import LayeredImage  # noqa: E402


def main():
    mib = int(sys.argv[1]) if len(sys.argv) > 1 else 1024
    changed = int(sys.argv[2]) if len(sys.argv) > 2 else 200
    with tempfile.TemporaryDirectory(prefix="smol-bench-", dir=os.environ.get("TMPDIR", "/var/tmp")) as folder:
        env = dict(os.environ, SMOLVM_DATA_DIR=os.path.join(folder, "data"))
        served = registry.Registry(os.path.join(folder, "registry"))
        atexit.register(served.stop)
        proxy = registry.CountingProxy(served.port)
        image = LayeredImage(os.path.join(folder, "layers"))
        rest = (mib - changed) // 4
        parts = [(name, rest << 20, seed) for seed, name in enumerate("abcd")]
        versions = [parts[:2] + [("m", changed << 20, seed)] + parts[2:] for seed in (100, 201)]
        result = {"image_mib": mib, "changed_mib": changed, "pushes": []}
        for number, version in enumerate(versions):
            layout = image.layout(os.path.join(folder, f"v{number}"), version)
            file = os.path.join(folder, f"v{number}.smolmachine")
            subprocess.run([BIN / "smolvm", "pack", "create", "-I", layout, "-o", file], env=env, check=True, stdout=subprocess.DEVNULL)
            before, start = proxy.sent, time.monotonic()
            subprocess.run([BIN / "smolvm", "pack", "push", "--file", file, f"{proxy.host}/app:{number}"], env=env, check=True)
            result["pushes"].append({"file_bytes": os.path.getsize(file), "sent_bytes": proxy.sent - before,
                                     "seconds": round(time.monotonic() - start, 1)})
            os.unlink(file)
        result["ratio"] = round(result["pushes"][1]["sent_bytes"] / (changed << 20), 3)
        proxy.stop()
        save("push", result)
        print(result)


if __name__ == "__main__":
    main()
