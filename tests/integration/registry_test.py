#!/usr/bin/env python3
"""Images from registries that work, that want a password, and that fail in every way; from archives; and what the store has
after each."""
import base64
import gzip
import json
import os
import shutil
import subprocess
import tarfile
import tempfile
import threading
import unittest

import registry
import smolvm

PAYLOAD = os.urandom(400_000)


class RegistryTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.shared = tempfile.mkdtemp(prefix="smolvm-registry-")
        cls.addClassCleanup(shutil.rmtree, cls.shared)
        cls.certificates = registry.Certificates(cls.shared)
        cls.plain = registry.Registry(os.path.join(cls.shared, "plain"))
        cls.addClassCleanup(cls.plain.stop)
        cls.image = registry.OciImage([{"bin/base": b"base"}, {"data/payload": PAYLOAD}, {"etc/top": b"top"}],
                                      config={"Entrypoint": ["/bin/base"], "Env": ["A=B"]})
        cls.image.push(cls.plain.port, "team/app", "1")

    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="smolvm-test-")
        self.addCleanup(shutil.rmtree, self.folder)
        self.env = {name: value for name, value in os.environ.items()
                    if name.lower() not in ("http_proxy", "https_proxy", "all_proxy", "no_proxy")}
        self.env.update({"HOME": self.folder, "XDG_CONFIG_HOME": os.path.join(self.folder, "config"),
                         "XDG_DATA_HOME": os.path.join(self.folder, "data"), "XDG_RUNTIME_DIR": os.path.join(self.folder, "run")})
        self.env.pop("SMOLVM_DATA_DIR", None)
        self.env.pop("REGISTRY_AUTH_FILE", None)
        self.env.pop("DOCKER_CONFIG", None)

    def smolvm(self, *words, **options):
        return subprocess.run([smolvm.SMOLVM, *words], capture_output=True, text=True, env=self.env, check=False,
                              timeout=smolvm.LIMIT, **{"stdin": subprocess.DEVNULL, **options})

    def pull(self, name, *options, **more):
        done = self.smolvm("image", "pull", name, "--json", *options, **more)
        self.assertEqual((done.returncode, done.stderr), (0, ""), done)
        return json.loads(done.stdout)

    def refused(self, name, *words, options=()):
        done = self.smolvm("image", "pull", name, *options)
        self.assertEqual((done.returncode, done.stdout, done.stderr.count("\n")), (1, "", 1), done)
        self.assertTrue(done.stderr.startswith("Error: "), done)
        for word in words:
            self.assertIn(word, done.stderr)
        self.assertEqual(self.images(), [])
        return done.stderr

    def images(self):
        done = self.smolvm("image", "ls", "--json")
        self.assertEqual(done.returncode, 0, done)
        return [image["reference"] for image in json.loads(done.stdout)]

    def write(self, path, text):
        path = os.path.join(self.folder, path)
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def rules(self, name, text):
        self.write("config/smolvm/registries.toml", f'[registry."{name}"]\n{text}\n')

    def proxy(self, fault):
        proxy = registry.FaultProxy(self.plain.port, fault)
        self.addCleanup(proxy.stop)
        return proxy

    def start(self, name, *arguments):
        started = registry.Registry(os.path.join(self.folder, name), *arguments)
        self.addCleanup(started.stop)
        return started

    # A registry that works.

    def test_by_tag_and_digest_and_without_the_registry(self):
        host = self.plain.host
        image = self.pull(f"{host}/team/app:1")
        self.assertEqual(image["manifest"], self.image.digest)
        self.assertEqual([layer["digest"] for layer in image["layers"]], self.image.layers)
        self.assertEqual(image["config"]["entrypoint"], ["/bin/base"])
        self.assertEqual(self.pull(f"{host}/team/app@{self.image.digest}")["manifest"], self.image.digest)
        # Blobs are as they were; and what is here needs no registry.
        for digest, data in self.image.blobs.items():
            with open(os.path.join(self.folder, "data/smolvm/images/blobs/sha256", digest[7:]), "rb") as file:
                self.assertEqual(file.read(), data)
        proxy = self.proxy(None)
        self.pull(f"{proxy.host}/team/app:1")
        asked = len(proxy.seen)
        self.assertFalse(any(layer in path for _, path, _ in proxy.seen for layer in self.image.layers), proxy.seen)
        self.pull(f"{proxy.host}/team/app:1", "--pull", "missing")
        self.pull(f"{proxy.host}/team/app:1", "--pull", "never")
        self.assertEqual(len(proxy.seen), asked)
        self.assertEqual(self.smolvm("image", "rm", f"{host}/team/app:1").returncode, 0)
        self.assertNotIn(f"{host}/team/app:1", self.images())
        done = self.smolvm("image", "pull", f"{host}/team/app:1", "--pull", "never")
        self.assertEqual(done.returncode, 1, done)
        self.assertIn("is not here", done.stderr)

    def test_platforms(self):
        arm = registry.OciImage([{"bin/base": b"arm"}], "arm64")
        registry.push_index(self.plain.port, "team/many", "1", [arm, self.image])
        name = f"{self.plain.host}/team/many:1"
        self.refused(name, "linux/riscv64", "linux/arm64", "linux/amd64", "--oci-platform", options=["--oci-platform", "linux/riscv64"])
        self.assertEqual(self.pull(name)["manifest"], self.image.digest)
        self.assertEqual(self.pull(name, "--oci-platform", "linux/arm64")["manifest"], arm.digest)

    def test_wrong_platform_of_a_single_image(self):
        self.refused(f"{self.plain.host}/team/app:1", "linux/amd64", "linux/arm64", options=["--oci-platform", "linux/arm64"])

    def test_docker_manifests_by_skopeo(self):
        layout = os.path.join(self.folder, "layout")
        self.image.write_layout(layout)
        name = f"{self.plain.host}/team/docker:1"
        registry.run("skopeo", "copy", "--insecure-policy", "--dest-tls-verify=false", "--format", "v2s2", f"oci:{layout}",
                     f"docker://{name}", env=self.env)
        image = self.pull(name)
        self.assertEqual([layer["digest"] for layer in image["layers"]], self.image.layers)
        self.assertIn("docker", image["layers"][0]["media_type"])

    def test_two_at_once(self):
        name = f"{self.plain.host}/team/app:1"
        running = [subprocess.Popen([smolvm.SMOLVM, "image", "pull", name], env=self.env, stdout=subprocess.PIPE,
                                    stderr=subprocess.PIPE, stdin=subprocess.DEVNULL) for _ in range(4)]
        for process in running:
            out, err = process.communicate(timeout=smolvm.LIMIT)
            self.assertEqual((process.returncode, err), (0, b""), out)
        self.assertEqual(self.images(), [name])
        self.assertEqual(os.listdir(os.path.join(self.folder, "data/smolvm/images/partial")), [])

    # Trust and passwords.

    def test_tls(self):
        secure = self.start("tls", self.certificates)
        name = f"{secure.host}/team/app:1"
        self.refused(name, "certificate", "not trusted")
        self.rules(secure.host, f'ca = "{self.certificates.ca}"')
        self.refused(name, "404")
        self.rules(secure.host, "insecure = true")
        self.refused(name, "404")
        self.rules(secure.host, 'ca = "/nowhere.pem"')
        self.refused(name, "/nowhere.pem")

    def test_password(self):
        private = self.start("private", None, "htpasswd")
        name = f"{private.host}/team/app:1"
        self.refused(name, "401", "user name and a password")
        entry = base64.b64encode(f"{registry.USER}:wrong".encode()).decode()
        path = self.write(".docker/config.json", json.dumps({"auths": {private.host: {"auth": entry}}}))
        self.refused(name, "401", "not accepted", path)
        entry = base64.b64encode(f"{registry.USER}:{registry.PASSWORD}".encode()).decode()
        self.write(".docker/config.json", json.dumps({"auths": {private.host: {"auth": entry}}}))
        self.refused(name, "404")  # let in, and nothing is there
        os.remove(path)
        self.env["REGISTRY_AUTH_FILE"] = self.write("auth.json", json.dumps({"auths": {private.host: {"auth": entry}}}))
        self.refused(name, "404")
        self.write("auth.json", "{ no JSON")
        self.refused(name, "auth.json", "JSON")

    def test_tokens(self):
        tokens = registry.TokenServer(self.certificates)
        self.addCleanup(tokens.stop)
        private = self.start("tokens", None, tokens)
        name = f"{private.host}/team/app:1"
        self.refused(name, "401", "token server", "who are you?")
        entry = base64.b64encode(f"{registry.USER}:{registry.PASSWORD}".encode()).decode()
        self.write("config/containers/auth.json", json.dumps({"auths": {private.host: {"auth": entry}}}))
        self.refused(name, "404")
        query, _ = tokens.requests[-1]
        self.assertEqual((query["scope"], query["service"]), (["repository:team/app:pull"], [tokens.service]))

    # A registry that fails.

    def test_refusals(self):
        for status, words in ((401, ["401"]), (403, ["403", "denies"]), (404, ["404", "does not have"])):
            with self.subTest(status=status):
                proxy = self.proxy(lambda method, path, count, status=status: {"status": status} if "manifests" in path else None)
                self.refused(f"{proxy.host}/team/app:1", *words, proxy.host)
                blobs = self.proxy(lambda method, path, count, status=status: {"status": status} if "blobs" in path else None)
                self.refused(f"{blobs.host}/team/app:1", *words, "blob sha256:")

    def test_busy_for_a_while(self):
        def fault(_, path, count):
            if count == 0 and "manifests" in path:
                return {"status": 429, "headers": {"Retry-After": "1"}}
            return {"status": 503} if count == 0 else None
        proxy = self.proxy(fault)
        self.assertEqual(self.pull(f"{proxy.host}/team/app:1")["manifest"], self.image.digest)

    def test_busy_for_ever(self):
        proxy = self.proxy(lambda *_: {"status": 500})
        self.refused(f"{proxy.host}/team/app:1", "500", "tried 4 times")
        self.assertEqual(len(proxy.seen), 4)
        proxy = self.proxy(lambda *_: {"status": 429, "headers": {"Retry-After": "86400"}})
        self.refused(f"{proxy.host}/team/app:1", "429", "86400 s")
        self.assertEqual(len(proxy.seen), 1)

    def test_resumes_a_blob(self):
        large = self.image.layers[1]
        proxy = self.proxy(lambda method, path, count: {"cut": 100_000} if large in path and count < 2 else None)
        self.assertEqual(self.pull(f"{proxy.host}/team/app:1")["manifest"], self.image.digest)
        ranges = [sent for _, path, sent in proxy.seen if large in path]
        self.assertEqual(ranges, [None, "bytes=100000-", "bytes=200000-"])

    def test_dies_and_stays_dead(self):
        large = self.image.layers[1]
        proxy = self.proxy(lambda method, path, count: ({"cut": 100_000 if count == 0 else 0}) if large in path else None)
        self.refused(f"{proxy.host}/team/app:1", large, "ended in the middle")
        # Another day: what had come is not fetched again.
        again = self.proxy(None)
        self.pull(f"{again.host}/team/app:1")
        self.assertEqual([sent for _, path, sent in again.seen if large in path], ["bytes=100000-"])

    def test_wrong_bytes(self):
        large = self.image.layers[1]
        proxy = self.proxy(lambda method, path, count: {"flip": 5000} if large in path else None)
        self.refused(f"{proxy.host}/team/app:1", large, "digest")
        proxy = self.proxy(lambda method, path, count: {"flip": 10} if "manifests" in path else None)
        self.refused(f"{proxy.host}/team/app:1", "digest")
        self.pull(f"{self.plain.host}/team/app:1")

    def test_killed_in_the_middle(self):
        large, held, go_on = self.image.layers[1], threading.Event(), threading.Event()
        self.addCleanup(go_on.set)
        proxy = self.proxy(lambda method, path, count: {"hold": go_on, "held": held} if large in path else None)
        process = subprocess.Popen([smolvm.SMOLVM, "image", "pull", f"{proxy.host}/team/app:1"], env=self.env,
                                   stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.assertTrue(held.wait(smolvm.LIMIT))
        process.kill()
        process.wait()
        self.assertEqual(self.images(), [])
        self.assertEqual(self.pull(f"{self.plain.host}/team/app:1")["manifest"], self.image.digest)

    # Ways there.

    def test_mirrors(self):
        proxy = self.proxy(lambda method, path, count: {"status": 403} if "team/app" in path else None)
        good = self.proxy(None)
        self.rules("registry.invalid", f'mirrors = ["{proxy.host}", "{good.host}"]')
        self.assertEqual(self.pull("registry.invalid/team/app:1")["reference"], "registry.invalid/team/app:1")
        self.assertTrue(proxy.seen and good.seen)
        self.rules("registry.invalid", f'location = "{good.host}"')
        self.pull("registry.invalid/team/app:1")

    def test_forward_proxy(self):
        forward = registry.ForwardProxy()
        self.addCleanup(forward.stop)
        self.env["HTTPS_PROXY"] = self.env["HTTP_PROXY"] = forward.address
        self.rules("registry.invalid", f'location = "http://registry.invalid:{self.plain.port}"')
        self.pull("registry.invalid/team/app:1")
        self.assertIn(f"GET http://registry.invalid:{self.plain.port}/v2/team/app/manifests/1", forward.seen)
        self.rules("registry.invalid", "")
        done = self.smolvm("image", "pull", "registry.invalid/team/app:1")
        self.assertIn("refuses a connection", done.stderr)
        self.assertIn("CONNECT registry.invalid:443", forward.seen)
        seen = len(forward.seen)
        self.pull(f"{self.plain.host}/team/app:1")  # never for loopback
        self.assertEqual(len(forward.seen), seen)

    def test_rules_are_checked(self):
        self.rules("a.example", "mirror = []")
        done = self.smolvm("config", "registries", "show")
        self.assertEqual(done.returncode, 1)
        self.assertIn("registries.toml:2:1", done.stderr)
        os.remove(os.path.join(self.folder, "config/smolvm/registries.toml"))
        self.assertEqual(self.smolvm("config", "registries", "init").returncode, 0)
        self.assertEqual(self.smolvm("config", "registries", "init").returncode, 1)
        self.assertEqual(self.smolvm("config", "registries", "show").returncode, 0)
        self.env["EDITOR"] = "echo '# more' >>"
        self.assertEqual(self.smolvm("config", "registries", "edit").returncode, 0)
        path = self.smolvm("config", "registries", "path").stdout.strip()
        with open(path, encoding="utf-8") as file:
            self.assertTrue(file.read().endswith("# more\n"))

    # Archives.

    def test_archives(self):
        layout, docker, oci = (os.path.join(self.folder, name) for name in ("layout", "docker.tar", "oci.tar"))
        self.image.write_layout(layout)
        registry.run("skopeo", "copy", "--insecure-policy", f"oci:{layout}", f"docker-archive:{docker}:team/app:1", env=self.env)
        registry.run("tar", "-C", layout, "-cf", oci, ".")
        self.assertEqual(self.pull(layout)["manifest"], self.image.digest)
        self.assertEqual(self.pull(oci)["manifest"], self.image.digest)
        image = self.pull(docker)
        with open(os.path.join(self.folder, "packed"), "wb+") as file:
            with open(docker, "rb") as plain:
                file.write(gzip.compress(plain.read(), 1))
            file.seek(0)
            piped = self.pull("-", stdin=file)
        self.assertEqual(piped["manifest"], image["manifest"])
        self.assertEqual(piped["reference"], "archive:docker.io/team/app:1")
        self.assertEqual([layer["diff_id"] for layer in image["layers"]],
                         json.loads(self.image.blobs[self.image.config])["rootfs"]["diff_ids"])

    def test_bad_archives(self):
        blobs = os.path.join(self.folder, "data/smolvm/images/blobs/sha256")
        layout, oci = os.path.join(self.folder, "layout"), os.path.join(self.folder, "oci.tar")
        self.image.write_layout(layout)
        layer = os.path.join(layout, "blobs/sha256", self.image.layers[1][7:])
        with open(layer, "r+b") as file:
            file.seek(1000)
            file.write(b"wrong")
        registry.run("tar", "-C", layout, "-cf", oci, ".")
        self.refused(oci, self.image.layers[1][7:], "another digest")
        self.assertEqual(os.listdir(blobs), [])
        self.refused(layout, self.image.layers[1])
        os.remove(layer)
        registry.run("tar", "-C", layout, "-cf", oci, ".")
        self.refused(oci, self.image.layers[1][7:])
        with tarfile.open(os.path.join(self.folder, "other.tar"), "w") as archive:
            archive.add(os.path.join(layout, "oci-layout"), "hello.txt")
        self.refused("oci-archive:" + os.path.join(self.folder, "other.tar"), "no docker-archive and no oci-archive")
        with open(oci, "r+b") as file:
            file.truncate(3000)
        self.refused(oci, oci)
        self.refused(os.path.join(self.folder, "missing.tar"), "missing.tar")


if __name__ == "__main__":
    smolvm.main()
