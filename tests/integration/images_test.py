#!/usr/bin/env python3
"""Machines from container images: archives and directories, what an image says of its program, the store, and bad input."""
import gzip
import io
import json
import lzma
import os
import signal
import socket
import subprocess
import tarfile
import tempfile
import time
import unittest
import urllib.request

import registry
from oci_images import Image, busybox, digest, layer, write_tar

SMOLVM = os.environ["SMOLVM"]
BASE = busybox()


class Images(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.TemporaryDirectory(prefix="smol-images-")
        self.addCleanup(self.folder.cleanup)
        self.env = dict(os.environ, SMOLVM_DATA_DIR=self.path("data"), HOME=self.path("home"))

    def path(self, name):
        return os.path.join(self.folder.name, name)

    def smolvm(self, *words, status=0, **more):
        done = subprocess.run([SMOLVM, *words], env=self.env, capture_output=True, timeout=240, **more)
        self.assertEqual(done.returncode, status, f"{words}: {done.stdout!r} {done.stderr!r}")
        return done.stdout.decode(), done.stderr.decode()

    def run_image(self, *words, status=0, **more):
        return self.smolvm("machine", "run", "-I", *words, status=status, **more)

    def blobs(self):
        found = []
        for folder, _, names in os.walk(self.path("data")):
            found += [os.path.join(folder, name) for name in names]
        return sorted(name for name in found if not name.endswith((".lock", "/lock")))

    def test_sources_give_the_same(self):
        image = Image([BASE, layer({"srv/hello": "hi\n"})], {"Cmd": ["cat", "/srv/hello"], "Env": ["PATH=/bin"]})
        directory = image.oci_directory(self.path("oci"))
        archive = image.oci_archive(self.path("oci.tar"))
        saved = image.docker_archive(self.path("docker.tar"), "mine:1")
        for source in (directory, archive, saved):
            self.assertEqual(self.run_image(source)[0], "hi\n", source)
        with open(archive, "rb") as stream:
            self.assertEqual(self.run_image("-", stdin=stream)[0], "hi\n")
        roots = [name for name in self.blobs() if name.endswith(".erofs")]
        self.assertEqual(len(roots), 1, "one root for all of them")
        listed = json.loads(self.smolvm("machine", "images", "--json")[0])
        self.assertGreaterEqual(len(listed), 3)
        self.smolvm("machine", "prune", "--all")
        self.assertEqual([name for name in self.blobs() if "/images/" in name], [])

    def test_root_archives(self):
        """A root file system's tar is told from image archives by its content; the same bytes are the same image."""
        with tarfile.open(fileobj=io.BytesIO(BASE)) as tar:
            self.assertNotIn("manifest.json", tar.getnames())
        # Names that images have, too, do not make it one.
        with open("/bin/busybox", "rb") as file:
            program = file.read()
        plain = layer({"bin/busybox": ("file", program, 0o755), "bin/sh": ("link", "busybox"),
                       "bin/cat": ("link", "busybox"), "srv/hello": "hi\n", "manifest.json": "{}", "tmp/": ("dir", 0o1777)})
        packed = {"root.tar": plain, "root.tar.gz": gzip.compress(plain, mtime=0), "root.tar.xz": lzma.compress(plain),
                  "root.zst": subprocess.run(["zstd", "-q", "-c"], input=plain, capture_output=True, check=True).stdout}
        for name, data in packed.items():
            with open(self.path(name), "wb") as file:
                file.write(data)
            self.assertEqual(self.run_image(self.path(name), "--", "cat", "/srv/hello")[0], "hi\n", name)
            with open(self.path(name), "rb") as stream:
                self.assertEqual(self.run_image("-", "--", "cat", "/srv/hello", stdin=stream)[0], "hi\n", name)
        self.assertEqual(len([name for name in self.blobs() if name.endswith(".erofs")]), 1, "one root for all of them")
        listed = json.loads(self.smolvm("machine", "images", "--json")[0])
        of_file = [image["digest"] for image in listed if image["name"] == "archive:" + self.path("root.tar")]
        self.assertEqual(len(of_file), 1)
        self.assertIn("archive:" + of_file[0], [image["name"] for image in listed], "from standard input")
        source = self.path("root.tar")
        errors = self.run_image(source, status=1)[1]
        self.assertIn("does not say what it runs", errors)
        self.assertIn("--entrypoint", errors)
        self.assertEqual(len(errors.splitlines()), 1, errors)
        self.assertEqual(self.run_image(source, "--entrypoint", "/bin/cat", "--", "/srv/hello")[0], "hi\n")
        self.smolvm("machine", "create", "-n", "m", "-I", source)
        self.smolvm("machine", "start", "m")
        self.assertEqual(self.smolvm("machine", "exec", "m", "--", "cat", "/srv/hello")[0], "hi\n")
        self.smolvm("machine", "delete", "-f", "m")
        with open(self.path("Smolfile"), "w", encoding="utf-8") as file:
            file.write('image = "based"\ncmd = ["cat", "/srv/hello", "/srv/more"]\n[build]\nbase = "./root.tar.xz"\n'
                       '[[build.step]]\ncopy = ["more", "/srv/"]\n')
        with open(self.path("more"), "w", encoding="utf-8") as file:
            file.write("more\n")
        self.smolvm("build", "-s", self.path("Smolfile"), cwd=self.folder.name)
        self.assertEqual(self.run_image("based")[0], "hi\nmore\n")
        with open(source, "rb") as stream:
            self.smolvm("pack", "create", "-I", "-", "--entrypoint", "cat", "-o", self.path("app"), "--single-file", "--", "/srv/hello",
                        stdin=stream)
        self.assertEqual(subprocess.run([self.path("app")], env=self.env, capture_output=True, timeout=240, check=True).stdout, b"hi\n")

    def test_bad_root_archives(self):
        good = layer({"bin/": ("dir", 0o755), "srv/hello": os.urandom(100_000)})
        self.smolvm("machine", "images")
        before = self.blobs()
        cases = {"cut.tar": (good[:60_000], "cut.tar"), "cut.tar.gz": (gzip.compress(good)[:50_000], "ends in the middle"),
                 "cut.tar.xz": (lzma.compress(good)[:50_000], "ends in the middle"),
                 "bent.tar.xz": (lzma.compress(good)[:50_000] + b"x" * 60_000, "xz stream is damaged"),
                 "text.gz": (gzip.compress(b"text" * 200), "text.gz"),
                 "bzip.tar": (b"BZh9" + bytes(600), "bzip2")}
        for name, (data, word) in cases.items():
            with open(self.path(name), "wb") as file:
                file.write(data)
            for source, stdin in ((self.path(name), None), ("-", name)):
                with open(self.path(stdin or name), "rb") as stream:
                    errors = self.run_image("docker-archive:" + source if name == "bzip.tar" and not stdin else source, "--", "true",
                                            status=1, stdin=stream)[1]
                self.assertEqual(len(errors.splitlines()), 1, errors)
                self.assertIn("standard input" if stdin and word == name else word, errors)
        self.assertIn("nothing in it", self.run_image("-", "--", "true", status=1, input=bytes(10240))[1])
        with open(self.path("good.tar"), "wb") as file:
            file.write(good)
        errors = self.run_image(self.path("good.tar"), "--oci-platform", "linux/arm64", "--", "true", status=1)[1]
        self.assertIn("linux/arm64", errors)
        self.assertIn("no docker-archive", self.run_image("docker-archive:" + self.path("good.tar"), status=1)[1])
        self.assertIn("no image 'x:1'", self.run_image(self.path("good.tar") + ":x:1", status=1)[1])
        self.assertEqual(self.blobs(), before)

    def several(self):
        """Two images in each kind of archive, and a third one without a name."""
        images = [Image([BASE, layer({"which": text})], {"Cmd": ["cat", "/which"], "Env": ["PATH=/bin"]}, compress=False)
                  for text in ("one", "two", "three")]
        names = ["docker.io/team/one:1", "localhost:5000/team/two:latest", ""]
        files, saved = {}, []
        index = {"schemaVersion": 2, "manifests": []}
        for image, name in zip(images, names):
            files.update({key: data for key, data in image.files().items() if key.startswith("blobs/")})
            files[digest(image.config)[7:] + ".json"] = image.config
            layers = ["blobs/sha256/" + digest(tar)[7:] for tar in image.tars]
            saved.append({"Config": digest(image.config)[7:] + ".json", "RepoTags": [name] if name else None, "Layers": layers})
            entry = image.descriptor("application/vnd.oci.image.manifest.v1+json", image.manifest)
            index["manifests"].append(dict(entry, annotations={"org.opencontainers.image.ref.name": name}) if name else entry)
        docker = write_tar(self.path("docker.tar"), dict(files, **{"manifest.json": json.dumps(saved).encode()}))
        oci_files = dict(files, **{"index.json": json.dumps(index).encode(), "oci-layout": b'{"imageLayoutVersion":"1.0.0"}'})
        oci = write_tar(self.path("oci.tar"), oci_files)
        with tarfile.open(oci) as tar:
            tar.extractall(self.path("layout"))
        return docker, oci, self.path("layout")

    def pulled(self, source):
        return json.loads(self.smolvm("image", "pull", source, "--json", "--pull", "missing", cwd=self.folder.name)[0])["manifest"]

    def test_several_images(self):
        docker, oci, layout = self.several()
        for source, prefix in ((docker, "docker-archive:"), (oci, "oci-archive:"), (layout, "oci:")):
            manifests = [self.pulled(source + ":" + choice) for choice in ("team/one:1", "localhost:5000/team/two", "@2")]
            self.assertEqual(len(set(manifests)), 3)
            self.assertEqual([self.pulled(prefix + source + ":" + choice) for choice in
                              ("docker.io/team/one:1", "localhost:5000/team/two:latest", "@2")], manifests)
            self.assertEqual(self.pulled(os.path.basename(source) + ":team/one:1" if source != layout else "./layout:team/one:1"),
                             manifests[0])
            self.assertEqual(self.run_image(source + ":localhost:5000/team/two")[0], "two")
            for wrong, word in ((source, "3 images"), (prefix + source, "3 images"), (source + ":none:1", "no image 'none:1'"),
                                (source + ":@3", "no image '@3'"), (source + ":team/one", "no image 'team/one'")):
                errors = self.run_image(wrong, status=1)[1]
                self.assertEqual(len(errors.splitlines()), 1, errors)
                for text in (word, "docker.io/team/one:1", "localhost:5000/team/two:latest", "@2"):
                    self.assertIn(text, errors)
        # A reference stays one, whatever files are called.
        with open(self.path("app"), "w", encoding="utf-8") as file:
            file.write("x")
        self.assertIn("docker.io/library/app:1", self.smolvm("image", "pull", "app:1", "--pull", "never", status=1, cwd=self.folder.name)[1])
        self.assertIn("none.tar:x", self.run_image("./none.tar:x", status=1)[1])

    def test_configuration(self):
        image = Image([BASE, layer({"entry": ("file", b"#!/bin/sh\necho \"$0 $* $A $B $(id -un) $(pwd)\"\n", 0o755)})],
                      {"Entrypoint": ["/entry", "one"], "Cmd": ["two"], "Env": ["PATH=/bin", "A=a", "B=b"], "User": "web",
                       "WorkingDir": "/srv/deep", "Volumes": {"/data/v": {}}})
        source = image.oci_directory(self.path("oci"))
        self.assertEqual(self.run_image(source)[0], "/entry one two a b web /srv/deep\n")
        self.assertEqual(self.run_image(source, "-e", "B=c", "--user", "0", "-w", "/tmp", "--", "x", "y")[0],
                         "/entry one x y a c root /tmp\n")
        self.assertEqual(self.run_image(source, "--entrypoint", "pwd")[0], "/srv/deep\n")
        self.assertEqual(self.run_image(source, "--entrypoint", "ls", "--", "-d", "/data/v")[0], "/data/v\n")
        self.assertEqual(self.run_image(source, "--entrypoint", "sh", "--", "-c", "touch /x && echo wrote", "--user", "0", status=1)[0], "")
        self.assertEqual(self.run_image(source, "--user", "0:0", "--entrypoint", "sh", "--", "-c", "touch /x && echo wrote")[0], "wrote\n")

    def test_layers_cover_each_other(self):
        image = Image([BASE,
                       layer({"a/": ("dir", 0o755), "a/old": "1", "a/kept": "2", "b/": ("dir", 0o755), "b/gone": "3", "hard": "4",
                              "harder": ("hard", "hard")}),
                       layer({"a/.wh.old": "", "b/.wh..wh..opq": "", "b/new": "5"})],
                      {"Env": ["PATH=/bin"], "Cmd": ["sh", "-c", "ls /a /b; stat -c %h /hard"]})
        self.assertEqual(self.run_image(image.oci_archive(self.path("i.tar")))[0], "/a:\nkept\n\n/b:\nnew\n2\n")

    def test_sixty_layers(self):
        layers = [BASE] + [layer({f"n/{number}": str(number)}) for number in range(59)]
        image = Image(layers, {"Env": ["PATH=/bin"]})
        source = image.oci_directory(self.path("oci"))
        self.assertEqual(self.run_image(source, "--", "sh", "-c", "cat /n/* | sha256sum; ls /n | grep -c .")[0].split()[-1], "59")

    def test_named_machine(self):
        image = Image([BASE, layer({"srv/index.html": "served\n"})],
                      {"Env": ["PATH=/bin", "A=image"], "Cmd": ["httpd", "-f", "-p", "80", "-h", "/srv"], "StopSignal": "SIGINT",
                       "ExposedPorts": {"80/tcp": {}}, "WorkingDir": "/srv",
                       "Healthcheck": {"Test": ["CMD-SHELL", "wget -q -O /dev/null http://127.0.0.1/index.html"], "Interval": 1000000000}})
        source = image.oci_directory(self.path("oci"))
        self.assertRegex(self.run_image(source, "-P", "--entrypoint", "true")[1], r"^80/tcp -> 127\.0\.0\.1:\d+\n$")
        self.smolvm("machine", "run", "-d", "-n", "web", "-P", "-I", source)
        try:
            # The program is started before the machine is ready, but it listens when it likes.
            self.smolvm("machine", "exec", "web", "--", "sh", "-c",
                        "until wget -q -O - http://127.0.0.1/index.html; do sleep 0.1; done")
            self.assertEqual(self.smolvm("machine", "exec", "web", "--", "sh", "-c", "echo $A; pwd")[0], "image\n/srv\n")
            told = json.loads(self.smolvm("machine", "status", "web", "--json")[0])
            self.assertEqual(told["exposed"], ["80/tcp"])
            published = self.smolvm("machine", "port", "web")[0]
            port = told["ports"][0]["host"]
            self.assertEqual(published, f"80/tcp -> 127.0.0.1:{port}\n")
            self.assertIn(f"Port: {port}:80\n", self.smolvm("machine", "ls", "-v")[0])
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/index.html", timeout=60) as answer:
                self.assertEqual(answer.read(), b"served\n")
            self.assertTrue(told["image_digest"].startswith("sha256:"))
            self.smolvm("machine", "prune", "--all")  # nothing that is in use
            self.smolvm("machine", "exec", "web", "--", "touch", "/srv/kept")
        finally:
            self.smolvm("machine", "stop", "web")
        with socket.socket() as taken:  # a port that somebody has meanwhile is chosen anew
            taken.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            taken.bind(("127.0.0.1", port))
            taken.listen()
            self.smolvm("machine", "start", "web")
        self.assertNotEqual(self.smolvm("machine", "port", "web")[0], published)
        self.assertIn("kept", self.smolvm("machine", "exec", "web", "--", "ls", "/srv")[0])
        self.smolvm("machine", "delete", "-f", "web")
        # Without a program of one's own a created machine waits for exec.
        self.smolvm("machine", "create", "-n", "still", "-P", "-I", source)
        self.assertEqual(self.smolvm("machine", "port", "still")[0], "80/tcp -> chosen when the machine starts\n")
        self.assertIsNone(json.loads(self.smolvm("machine", "status", "still", "--json", status=1)[0])["ports"][0]["host"])
        self.smolvm("machine", "start", "still")
        self.assertNotIn("httpd", self.smolvm("machine", "exec", "still", "--", "ps")[0])
        self.smolvm("machine", "delete", "-f", "still")

    def test_stop_signal(self):
        script = b"#!/bin/sh\ntrap 'echo asked > /told; exit 0' USR1\ntrap 'echo wrong > /told' TERM\necho > /ready\nwhile true; do sleep 0.1; done\n"
        image = Image([BASE, layer({"entry": ("file", script, 0o755)})],
                      {"Env": ["PATH=/bin"], "Entrypoint": ["/entry"], "StopSignal": "SIGUSR1"})
        self.smolvm("machine", "run", "-d", "-n", "s", "-I", image.oci_directory(self.path("oci")))
        self.smolvm("machine", "exec", "s", "--", "sh", "-c", "until test -f /ready; do sleep 0.1; done")
        self.smolvm("machine", "stop", "s")
        self.smolvm("machine", "update", "s", "-e", "X=1")
        told = self.smolvm("machine", "start", "s")
        self.assertEqual(self.smolvm("machine", "exec", "s", "--", "cat", "/told")[0], "asked\n", told)
        self.smolvm("machine", "delete", "-f", "s")

    def test_bad_input(self):
        good = Image([BASE], {"Env": ["PATH=/bin"], "Entrypoint": ["/nowhere"]})
        source = good.oci_directory(self.path("oci"))
        errors = self.run_image(source, status=127)[1]
        self.assertIn("/nowhere", errors)
        self.assertEqual(len(errors.splitlines()), 1, errors)
        before = self.blobs()
        other = Image([BASE], architecture="arm64").oci_archive(self.path("arm.tar"))
        errors = self.run_image(other, status=1)[1]
        self.assertIn("arm64", errors)
        self.assertEqual(len(errors.splitlines()), 1, errors)
        self.assertLessEqual(set(self.blobs()), set(before), "nothing more in the store")
        broken = Image([BASE, layer({"x": "y"})])
        for name in list(broken.blobs):
            if broken.blobs[name] == broken.packed[1]:
                broken.blobs[name] = broken.blobs[name][:-9] + b"\xff" + broken.blobs[name][-8:]
        errors = self.run_image(broken.oci_archive(self.path("broken.tar")), status=1)[1]
        self.assertEqual(len(errors.splitlines()), 1, errors)
        self.assertLessEqual(set(self.blobs()), set(before), "nothing more in the store")
        errors = self.smolvm("machine", "run", "-I", "localhost:1/none:latest", "--pull", "never", status=1)[1]
        self.assertIn("localhost:1/none:latest", errors)
        self.assertIn("a b", self.smolvm("machine", "run", "-I", "a b", status=1)[1])

    @unittest.skipUnless(os.geteuid() == 0, "mounts a small file system")
    def test_no_space(self):
        big = Image([BASE, layer({"big": os.urandom(6 << 20)})], compress=False)
        archive = big.oci_archive(self.path("big.tar"))
        os.makedirs(self.path("data"))
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", self.path("data")], check=True)
        try:
            errors = self.run_image(archive, status=1)[1]
            self.assertIn("No space left", errors)
            self.assertEqual(len(errors.splitlines()), 1, errors)
            self.assertEqual([name for name in self.blobs() if "/blobs/" in name or "/roots/" in name], [])
        finally:
            subprocess.run(["umount", self.path("data")], check=True)

    def test_from_a_registry(self):
        """The first run pulls, the next ones ask nobody: they run with the registry gone."""
        served = registry.Registry(self.path("registry"))
        try:
            layout = Image([BASE, layer({"srv/hello": "hi\n"})], {"Env": ["PATH=/bin"], "Cmd": ["cat", "/srv/hello"]})
            for data in layout.packed + [layout.config]:
                registry.push_blob(served.port, "team/hello", data)
            registry.put_manifest(served.port, "team/hello", "1", layout.manifest, "application/vnd.oci.image.manifest.v1+json")
            name = f"localhost:{served.port}/team/hello:1"
            self.assertEqual(self.run_image(name)[0], "hi\n")
        finally:
            served.stop()
        self.assertEqual(self.run_image(name)[0], "hi\n")
        self.assertIn(name, self.smolvm("machine", "images")[0])
        self.run_image(name, "--pull", "always", status=1)

    def test_two_at_once_and_a_kill(self):
        image = Image([BASE, layer({f"d/{n}": os.urandom(20000) for n in range(200)})], {"Env": ["PATH=/bin"]})
        source = image.oci_archive(self.path("i.tar"))
        killed = subprocess.Popen([SMOLVM, "machine", "run", "-I", source, "--", "true"], env=self.env)
        while not os.path.isdir(self.path("data/images/partial")) and killed.poll() is None:
            time.sleep(0.001)
        time.sleep(0.02)
        killed.send_signal(signal.SIGKILL)
        killed.wait()
        runs = [subprocess.Popen([SMOLVM, "machine", "run", "-I", source, "--", "sh", "-c", "ls /d | grep -c ."], env=self.env,
                                 stdout=subprocess.PIPE) for _ in range(2)]
        for run in runs:
            self.assertEqual(run.communicate(timeout=240)[0], b"200\n")
        self.smolvm("machine", "prune")
        self.assertEqual([name for name in self.blobs() if "/partial/" in name], [])


if __name__ == "__main__":
    unittest.main()
