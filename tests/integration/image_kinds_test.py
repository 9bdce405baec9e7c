#!/usr/bin/env python3
"""Kinds of images: a static server and nothing else, health that an image asks for, layers that mean ill; what builds leave for prune, and
what sizes are told."""
import http.client
import json
import os
import subprocess
import tarfile
import tempfile
import threading
import time
import unittest

import smolvm
from oci_images import Image, busybox, layer, write_tar

HERE = os.path.dirname(os.path.abspath(__file__))
BASE = busybox()


class ImageKinds(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="smol-kinds-")
        self.addCleanup(self.folder.cleanup)
        self.env = dict(os.environ, SMOLVM_DATA_DIR=self.path("data"), HOME=self.path("home"))

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def smolvm(self, *words, status=0):
        done = subprocess.run([smolvm.SMOLVM, *words], env=self.env, capture_output=True, timeout=120, stdin=subprocess.DEVNULL)
        self.assertEqual(done.returncode, status, f"{words}: {done.stdout!r} {done.stderr!r}")
        return done.stdout.decode(), done.stderr.decode()

    def files(self, below="data/images"):
        found = {}
        for folder, _, names in os.walk(self.path(below)):
            for name in names:
                status = os.stat(os.path.join(folder, name))
                found[os.path.join(folder, name)] = (status.st_size, status.st_blocks * 512)
        return found

    def answer(self, machine, port):
        """Of a server that listens when it likes; its machine's end is an answer, too."""
        deadline = time.monotonic() + 120
        while True:
            connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
            try:
                connection.request("GET", "/path")
                return connection.getresponse().read()
            except (OSError, http.client.HTTPException) as error:
                state = json.loads(subprocess.run([smolvm.SMOLVM, "machine", "status", machine, "--json"], env=self.env,
                                                  capture_output=True, check=False).stdout)
                if state["state"] != "running" or time.monotonic() > deadline:
                    self.fail(f"{error}: {state} {self.smolvm('machine', 'logs', machine)}")
                time.sleep(0.05)
            finally:
                connection.close()

    def test_static_server_from_scratch(self):
        program = self.path("server")
        subprocess.run(["musl-gcc", "-static", "-Os", "-D_GNU_SOURCE", "-o", program, os.path.join(HERE, "echo_server.c")], check=True)
        with open(program, "rb") as file:
            image = Image([layer({"server": ("file", file.read(), 0o755)})],
                          {"Entrypoint": ["/server"], "ExposedPorts": {"8080/tcp": {}}, "User": "65534:65534"})
        self.smolvm("machine", "run", "-d", "-n", "s", "-P", "-I", image.oci_archive(self.path("server.tar")))
        try:
            ports = json.loads(self.smolvm("machine", "port", "s", "--json")[0])
            self.assertEqual([(port["guest"], port["protocol"]) for port in ports], [(8080, "tcp")])
            self.assertEqual(self.answer("s", ports[0]["host"]), b"GET /path HTTP/1.1\n")
        finally:
            self.smolvm("machine", "delete", "-f", "s")

    def test_health_of_the_image(self):
        """HEALTHCHECK is what `machine monitor` asks: a machine that is not well is started anew. Ours is well from the second
        time on that it is asked."""
        image = Image([BASE], {"Env": ["PATH=/bin"], "Cmd": ["sh", "-c", "while true; do sleep 1; done"],
                               "Healthcheck": {"Test": ["CMD-SHELL", "test -e /asked || { touch /asked; sync; false; }"], "Interval": 100_000_000, "Timeout": 60_000_000_000,
                                               "Retries": 1}})
        self.smolvm("machine", "run", "-d", "-n", "h", "-I", image.oci_directory(self.path("oci")))
        watcher = subprocess.Popen([smolvm.SMOLVM, "machine", "monitor", "h"], env=self.env, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        guard = threading.Timer(120, watcher.kill)
        guard.start()
        try:
            said = []
            for word in ("restarting", "started"):
                for line in watcher.stdout:
                    said.append(line)
                    if word in line:
                        break
                else:
                    self.fail(f"the watcher ended: {said}")
            self.smolvm("machine", "exec", "h", "--", "ls", "/asked")
        finally:
            guard.cancel()
            watcher.kill()
            watcher.communicate()
            self.smolvm("machine", "delete", "-f", "h")

    def hostile(self, fill):
        path = self.path("layer.tar")
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
            fill(tar)
        with open(path, "rb") as file:
            return file.read()

    def test_layers_that_mean_ill(self):
        def entry(name, kind=tarfile.REGTYPE, **more):
            def fill(tar):
                info = tarfile.TarInfo(name)
                info.type = kind
                for key, value in more.items():
                    setattr(info, key, value)
                tar.addfile(info)
            return fill

        def through_a_link(tar):
            entry("out", tarfile.SYMTYPE, linkname="../../../../../../../../../.." + self.path("target"))(tar)
            entry("out/planted")(tar)
            entry("in", tarfile.SYMTYPE, linkname="../../srv/inside")(tar)
            entry("in/planted")(tar)
        self.smolvm("machine", "images")
        before = self.files()
        header = bytearray(self.hostile(entry("big")))
        header[124:136] = b"\x80" + b"\x00" * 2 + b"\x7f" + b"\xff" * 8  # 2^63 bytes
        header[148:156] = b" " * 8
        header[148:156] = f"{sum(header[:512]):06o}\0 ".encode()
        bad = {"..": self.hostile(entry("../planted")), "deep": self.hostile(entry("a/../../planted")),
               "hard": self.hostile(entry("h", tarfile.LNKTYPE, linkname="../../etc/passwd")),
               "device": self.hostile(entry("d", tarfile.CHRTYPE, devmajor=100_000)), "size": bytes(header)}
        for name, tar in bad.items():
            for source in (Image([BASE, tar]).oci_archive(self.path(name + ".oci.tar")),
                           Image([BASE, tar]).docker_archive(self.path(name + ".docker.tar"), "bad:1")):
                errors = self.smolvm("machine", "run", "-I", source, "--", "true", status=1)[1]
                self.assertEqual(len(errors.splitlines()), 1, errors)
                self.assertIn("layer sha256:", errors)
        self.assertEqual([name for name in self.files() if name.endswith(".erofs") or "/tmp-" in name], [])
        # What leads out stays inside: absolute names, links, and devices are names in the root.
        os.makedirs(self.path("target"))
        good = Image([BASE, self.hostile(entry("/abs")), self.hostile(through_a_link),
                      self.hostile(entry("null", tarfile.CHRTYPE, devmajor=1, devminor=3))],
                     {"Env": ["PATH=/bin"]})
        out = self.smolvm("machine", "run", "-I", good.oci_archive(self.path("good.tar")), "--", "sh", "-c",
                          "ls /abs /null /srv/inside")[0]
        self.assertEqual(out.split(), ["/abs", "/null", "/srv/inside:", "planted"])
        self.assertEqual(os.listdir(self.path("target")), [])
        # The wrong digest: a layer that is another one's.
        swapped = Image([BASE, layer({"x": "y"})])
        files = swapped.files()
        first, second = ("blobs/sha256/" + json.loads(swapped.manifest)["layers"][n]["digest"][7:] for n in (0, 1))
        files[second] = files[first]
        errors = self.smolvm("machine", "run", "-I", write_tar(self.path("swapped.tar"), files), "--", "true", status=1)[1]
        self.assertIn("another digest", errors)
        self.smolvm("machine", "prune", "--all")
        self.assertEqual({name: sizes for name, sizes in self.files().items() if sizes[0] > 0},
                         {name: sizes for name, sizes in before.items() if sizes[0] > 0})

    def test_what_builds_leave(self):
        image = Image([BASE], {"Env": ["PATH=/bin"]})
        image.oci_archive(self.path("base.tar"))
        with open(self.path("Smolfile"), "w", encoding="utf-8") as file:
            file.write('image = "made"\ncmd = ["cat", "/one", "/two"]\n[build]\nbase = "./base.tar"\nmemory = 128\n'
                       '[[build.step]]\nrun = "echo 1 > /one"\n[[build.step]]\nrun = "echo 2 > /two"\n')
        self.smolvm("build", "-s", self.path("Smolfile"))
        self.assertEqual(self.smolvm("machine", "run", "-I", "made")[0], "1\n2\n")
        self.smolvm("image", "rm", "archive:" + self.path("base.tar"))
        before = self.files()
        roots = [name for name in before if name.endswith(".erofs")]
        self.assertEqual(len(roots), 3, "of the base and of each step")
        dry = json.loads(self.smolvm("machine", "prune", "--dry-run", "--json")[0])
        self.assertEqual(self.files(), before)
        told = json.loads(self.smolvm("machine", "prune", "--json")[0])
        self.assertEqual((told["removed"], told["bytes"]), (dry["removed"], dry["bytes"]))
        gone = {name: sizes for name, sizes in before.items() if name not in self.files()}
        self.assertEqual(len([name for name in gone if name.endswith(".erofs")]), 2)
        self.assertEqual(told["bytes"], sum(disk for _, disk in gone.values()))
        self.assertEqual({item["path"]: item["bytes"] for item in told["removed"] if item.get("path", "").endswith(".erofs")},
                         {name: disk for name, (_, disk) in gone.items() if name.endswith(".erofs")})
        self.assertEqual(self.smolvm("machine", "run", "-I", "made")[0], "1\n2\n")
        # The size of an image is that of its parts; each has its name in the store.
        listed = [image for image in json.loads(self.smolvm("machine", "images", "--json")[0]) if image["name"].endswith("/made:latest")]
        self.assertEqual(len(listed), 1)
        blobs = {name: size for name, (size, _) in self.files().items() if "/blobs/" in name}
        self.assertEqual(listed[0]["bytes"], sum(blobs.values()))
        self.assertIn(f"{listed[0]['bytes'] / 1e6:.1f} MB", self.smolvm("machine", "images")[0])
        all_of_it = json.loads(self.smolvm("machine", "prune", "--all", "--json")[0])
        self.assertGreaterEqual(all_of_it["bytes"], sum(blobs.values()))
        self.assertEqual([name for name in self.files() if "/blobs/" in name or "/roots/" in name or "/refs/" in name], [])


if __name__ == "__main__":
    smolvm.main()
