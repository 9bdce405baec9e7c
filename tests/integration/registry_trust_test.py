#!/usr/bin/env python3
"""Whom a pull trusts and who lets it in: certificates, user names from every place where docker and podman keep them, proxies and
mirrors; and that nothing that is refused changes the store, nor a kill at any point."""
import base64
import json
import os
import random
import shutil
import socket
import subprocess
import tempfile
import time
import types
import unittest

import registry
import smolvm

GOOD = base64.b64encode(f"{registry.USER}:{registry.PASSWORD}".encode()).decode()
BAD = base64.b64encode(f"{registry.USER}:wrong".encode()).decode()


class RegistryTrustTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.shared = tempfile.mkdtemp(prefix="smolvm-registry-")
        cls.addClassCleanup(shutil.rmtree, cls.shared)
        cls.certificates = registry.Certificates(os.path.join(cls.shared, "good"), "DNS:localhost,DNS:registry.invalid,IP:127.0.0.1")
        noise = random.Random(5).randbytes
        cls.image = registry.OciImage([{"bin/base": b"base"}, {"data/one": noise(300_000)}, {"data/two": noise(200_000)}])
        cls.plain = registry.Registry(os.path.join(cls.shared, "plain"))
        cls.addClassCleanup(cls.plain.stop)
        cls.image.push(cls.plain.port, "team/app", "1")
        cls.other = registry.OciImage([{"bin/base": b"other"}])
        cls.other.push(cls.plain.port, "team/other", "1")

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="smolvm-test-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.env = {name: value for name, value in os.environ.items()
                    if name.lower() not in ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file")}
        for name in ("REGISTRY_AUTH_FILE", "DOCKER_CONFIG"):
            self.env.pop(name, None)
        self.env.update({"HOME": self.folder, "XDG_CONFIG_HOME": os.path.join(self.folder, "config"),
                         "SMOLVM_DATA_DIR": os.path.join(self.folder, "data"), "XDG_RUNTIME_DIR": os.path.join(self.folder, "run")})

    def smolvm(self, *words):
        return subprocess.run([smolvm.SMOLVM, *words], capture_output=True, text=True, env=self.env, check=False,
                              timeout=smolvm.LIMIT, stdin=subprocess.DEVNULL)

    def pull(self, name, image=None, *options):
        done = self.smolvm("image", "pull", name, "--json", *options)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done)
        self.assertEqual(json.loads(done.stdout)["manifest"], (image or self.image).digest)

    def store(self):
        """Every file with its size; locks, which are empty, and downloads that go on later are none of what the store has."""
        found = {}
        for folder, _, names in os.walk(os.path.join(self.folder, "data", "images")):
            for name in names:
                path = os.path.join(folder, name)
                if os.path.getsize(path) > 0 and os.path.basename(folder) != "partial":
                    found[path] = os.path.getsize(path)
        return found

    def refused(self, name, *words, options=()):
        before = self.store()
        done = self.smolvm("image", "pull", name, *options)
        self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (1, "", 1), done)
        self.assertTrue(done.stderr.startswith("Error: "), done)
        for word in words:
            self.assertIn(word, done.stderr)
        self.assertEqual(self.store(), before)

    def write(self, path, text, mode=0o600):
        path = os.path.join(self.folder, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        os.chmod(path, mode)
        return path

    def rules(self, *named):
        self.write("config/smolvm/registries.toml", "".join(f'[registry."{name}"]\n{text}\n' for name, text in named))

    def start(self, name, *arguments):
        started = registry.Registry(os.path.join(self.folder, name), *arguments)
        self.addCleanup(started.stop)
        return started

    def proxy(self, fault):
        proxy = registry.FaultProxy(self.plain.port, fault)
        self.addCleanup(proxy.stop)
        return proxy

    def secure(self, certificates, name="tls"):
        """A registry with TLS over the plain one's contents."""
        folder = os.path.join(self.folder, name)
        os.makedirs(folder)
        shutil.copytree(os.path.join(self.shared, "plain", "data"), os.path.join(folder, "data"))
        return self.start(name, certificates)

    def test_certificates(self):
        host = self.secure(self.certificates).host
        name = f"{host}/team/app:1"
        self.refused(name, "certificate", "not trusted")
        wrong = registry.Certificates(os.path.join(self.folder, "wrong"))
        self.rules((host, f'ca = "{wrong.ca}"'))
        self.refused(name, "certificate", "not trusted")
        for number, (names, days, word) in enumerate((("DNS:localhost,IP:127.0.0.1", -1, "expired"),
                                                      ("DNS:elsewhere.invalid", 30, "hostname mismatch"))):
            certificates = registry.Certificates(os.path.join(self.folder, f"bad{number}"), names, days)
            bad = self.start(f"badly{number}", certificates)
            self.rules((bad.host, f'ca = "{certificates.ca}"'))
            self.refused(f"{bad.host}/team/app:1", "not trusted", word)
            self.rules((bad.host, "insecure = true"))
            self.refused(f"{bad.host}/team/app:1", "404")
        self.rules((host, f'ca = "{self.certificates.ca}"'))
        self.pull(name)
        os.remove(os.path.join(self.folder, "config/smolvm/registries.toml"))
        self.assertEqual(self.smolvm("image", "rm", name).returncode, 0)
        self.env["SMOLVM_REGISTRY_CA"] = self.certificates.ca
        self.pull(name)

    def test_user_names(self):
        private = self.start("private", None, "htpasswd")
        name = f"{private.host}/team/app:1"
        self.refused(name, "401", "user name and a password")
        helper = ('#!/bin/sh\nread host\necho "$1 $host" >> "$HOME/asked"\n'
                  f'echo \'{{"ServerURL":"x","Username":"{registry.USER}","Secret":"{registry.PASSWORD}"}}\'\n')
        self.write("bin/docker-credential-good", helper, 0o755)
        self.write("bin/docker-credential-none", '#!/bin/sh\necho "credentials not found in native keychain"\nexit 1\n', 0o755)
        self.write("bin/docker-credential-odd", "#!/bin/sh\necho no JSON\n", 0o755)
        self.env["PATH"] = os.path.join(self.folder, "bin") + ":" + self.env["PATH"]
        docker, podman = ".docker/config.json", "run/containers/auth.json"
        let_in = (
            (docker, {"auths": {private.host: {"auth": GOOD}}}),
            (docker, {"auths": {f"http://{private.host}/v2/": {"username": registry.USER, "password": registry.PASSWORD}}}),
            (docker, {"credHelpers": {private.host: "good"}, "auths": {private.host: {"auth": BAD}}}),
            (docker, {"credsStore": "good"}),
            (docker, {"credsStore": "good", "auths": {private.host: {}}}),
            (podman, {"auths": {private.host: {"auth": GOOD}}}),
            (podman, {"auths": {f"{private.host}/team": {"auth": GOOD}, private.host: {"auth": BAD}}}),
            (podman, {"credHelpers": {private.host: "good"}}))
        for path, document in let_in:
            with self.subTest(path=path, document=document):
                written = self.write(path, json.dumps(document))
                self.refused(name, "404")  # nothing is there, which only those learn that are let in
                os.remove(written)
        with open(os.path.join(self.folder, "asked"), encoding="utf-8") as file:
            self.assertEqual({line.split()[0] for line in file}, {"get"})
        for path, document, words in ((docker, {"auths": {private.host: {"auth": BAD}}}, ["401", "not accepted", docker]),
                                      (podman, {"auths": {f"{private.host}/else": {"auth": GOOD}}}, ["401"]),
                                      (docker, {"credsStore": "none"}, ["401"]),
                                      (docker, {"credHelpers": {private.host: "odd"}}, ["docker-credential-odd"]),
                                      (docker, {"credHelpers": {private.host: "missing"}}, ["docker-credential-missing"])):
            with self.subTest(path=path, document=document):
                written = self.write(path, json.dumps(document))
                self.refused(name, *words)
                os.remove(written)

    def test_statuses_leave_the_store(self):
        self.pull(f"{self.plain.host}/team/other:1", self.other)
        for place in ("manifests", "blobs"):
            for status, words, headers in ((401, ["401"], {}), (403, ["403", "denies"], {}), (404, ["404"], {}),
                                           (429, ["429", "3600 s"], {"Retry-After": "3600"}), (500, ["500", "tried 4 times"], {})):
                with self.subTest(place=place, status=status):
                    proxy = self.proxy(lambda method, path, count, s=status, h=headers, p=place: {"status": s, "headers": h} if p in path else None)
                    self.refused(f"{proxy.host}/team/app:1", *words, proxy.host)
        self.pull(f"{self.plain.host}/team/app:1")

    def test_mirrors(self):
        taken = socket.socket()  # bound, and nobody listens there
        self.addCleanup(taken.close)
        taken.bind(("127.0.0.1", 0))
        down = types.SimpleNamespace(host=f"localhost:{taken.getsockname()[1]}")
        wrong = self.proxy(lambda method, path, count: {"flip": 1000} if self.image.layers[1] in path else None)
        busy = self.proxy(lambda *_: {"status": 429, "headers": {"Retry-After": "3600"}})
        good = self.proxy(None)
        real = f'location = "{self.plain.host}"\n'
        for mirrors in ([down, good], [wrong, good], [busy, good], [down, wrong, busy]):
            names = ", ".join(f'"{mirror.host}"' for mirror in mirrors)
            self.rules(("registry.invalid", f"mirrors = [{names}]\n{real}"))
            self.pull("registry.invalid/team/app:1")
            shutil.rmtree(os.path.join(self.folder, "data"))
        self.assertTrue(wrong.seen and busy.seen and good.seen)
        self.rules(("registry.invalid", f'mirrors = ["{down.host}", "{wrong.host}"]\nlocation = "{busy.host}"'))
        self.refused("registry.invalid/team/app:1", "neither its mirrors", down.host, "digest", "429")

    def test_https_proxy(self):
        secure = self.secure(self.certificates)
        forward = registry.ForwardProxy(self.certificates, tunnels=True)
        self.addCleanup(forward.stop)
        self.env["HTTPS_PROXY"] = self.env["HTTP_PROXY"] = f"https://{forward.address}"
        place = f'location = "https://registry.invalid:{secure.port}"\n'
        self.rules(("registry.invalid", place + "insecure = true"))
        self.refused("registry.invalid/team/app:1", forward.address, "not trusted")  # the proxy is never insecure
        self.env["SMOLVM_REGISTRY_CA"] = self.certificates.ca
        self.rules(("registry.invalid", place))
        self.pull("registry.invalid/team/app:1")
        self.assertIn(f"CONNECT registry.invalid:{secure.port}", forward.seen)
        self.rules(("registry.invalid", f'location = "http://registry.invalid:{self.plain.port}"'))
        self.pull("registry.invalid/team/other:1", self.other)
        self.assertIn(f"GET http://registry.invalid:{self.plain.port}/v2/team/other/manifests/1", forward.seen)
        plain = registry.ForwardProxy()
        self.addCleanup(plain.stop)
        self.env["HTTP_PROXY"] = f"https://{plain.address}"
        self.refused("registry.invalid/team/app:2", plain.address)

    def test_killed_at_any_point(self):
        """Pulls killed at random points, two at once at the end: what is there is whole."""
        name = f"{self.plain.host}/team/app:1"
        start = time.monotonic()
        self.pull(name)
        whole, length = self.store(), time.monotonic() - start
        chance = random.Random(os.environ.get("SMOL_SEED", "7"))
        for _ in range(8):
            shutil.rmtree(os.path.join(self.folder, "data"))
            for _ in range(2):  # the second one goes on with what the first has left
                process = subprocess.Popen([smolvm.SMOLVM, "image", "pull", name], env=self.env, stdin=subprocess.DEVNULL,
                                           stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                time.sleep(chance.uniform(0, length))
                process.kill()
                process.wait()
                for path, size in self.store().items():
                    self.assertEqual(size, whole.get(path, size), path)  # never half of a blob under its name
            running = [subprocess.Popen([smolvm.SMOLVM, "image", "pull", name], env=self.env, stdin=subprocess.DEVNULL,
                                        stdout=subprocess.PIPE, stderr=subprocess.PIPE) for _ in range(2)]
            for process in running:
                out, err = process.communicate(timeout=smolvm.LIMIT)
                self.assertEqual((process.returncode, err), (0, b""), out)
            self.assertEqual({path for path in self.store() if "/refs/" not in path}, {path for path in whole if "/refs/" not in path})
            for digest, data in self.image.blobs.items():
                with open(os.path.join(self.folder, "data/images/blobs/sha256", digest[7:]), "rb") as file:
                    self.assertEqual(file.read(), data)
        self.assertEqual(self.smolvm("machine", "prune").returncode, 0)
        self.assertEqual(os.listdir(os.path.join(self.folder, "data/images/partial")), [])


if __name__ == "__main__":
    smolvm.main()
