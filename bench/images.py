#!/usr/bin/env python3
"""What an image costs when it is here already: `machine run -I IMAGE` against `machine run` with the embedded root.

usage: bench/images.py [RUNS]

RUNS pairs (default 30), alternating, so that whatever else the machine does hits both. Printed: the median of each, of the differences and of
the ratios, of the whole command from its start to its end; the guest's instructions until init; what the first run took (unpacking included).
The image is the one below tests/integration/oci_images.py with BusyBox; a registry is not part of it.
"""
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

from common import BIN, ROOT

sys.path.insert(0, str(ROOT / "tests/integration"))
from oci_images import Image, busybox, layer  # noqa: E402


def run(words, env):
    start = time.monotonic()
    subprocess.run([BIN / "smolvm", "machine", "run", *words, "--", "true"], env=env, check=True)
    return (time.monotonic() - start) * 1000


def instructions(words, env, folder):
    path = os.path.join(folder, "stats.json")
    subprocess.run([BIN / "smolvm", "machine", "run", "--stats", path, *words, "--", "true"], env=env, check=True)
    with open(path) as file:
        return json.load(file)["guest_instructions_to_init"]


def main():
    runs = int(sys.argv[1]) if len(sys.argv) > 1 else 30
    with tempfile.TemporaryDirectory(prefix="smol-bench-") as folder:
        env = dict(os.environ, SMOLVM_DATA_DIR=os.path.join(folder, "data"))
        layers = [busybox()] + [layer({f"usr/share/{n}/data": os.urandom(100_000)}) for n in range(10)]
        # By its digest's name in the store, as a pulled image is: a Smolfile's result.
        with open(os.path.join(folder, "Smolfile"), "w") as file:
            file.write('image = "bench"\n[build]\nbase = "./base.tar"\n')
        Image(layers, {"Env": ["PATH=/bin"]}).oci_archive(os.path.join(folder, "base.tar"))
        subprocess.run([BIN / "smolvm", "build", "-s", folder], env=env, check=True, stdout=subprocess.DEVNULL)
        image = ["-I", "bench"]
        first = run(image, env)
        pairs = []
        for number in range(runs):
            order = [image, []] if number % 2 else [[], image]
            times = {len(words): run(words, env) for words in order}
            pairs.append((times[2], times[0]))
        result = {
            "runs": runs,
            "first_ms": round(first, 1),
            "image_ms": round(statistics.median(a for a, _ in pairs), 1),
            "embedded_ms": round(statistics.median(b for _, b in pairs), 1),
            "difference_ms": round(statistics.median(a - b for a, b in pairs), 1),
            "ratio": round(statistics.median(a / b for a, b in pairs), 3),
            "image_instructions": instructions(image, env, folder),
            "embedded_instructions": instructions([], env, folder),
        }
        print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
