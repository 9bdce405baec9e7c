"""Packed applications: one file that runs where nothing is installed."""
import json
import os
import re
import shutil
import signal
import subprocess
import tempfile
import unittest
import urllib.request

import smolvm
from smolvm import LIMIT, SMOLVM

HERE = os.path.dirname(os.path.abspath(__file__))
MOST_BYTES = 6_000_000  # of the HTTP echo server's capsule
SECTIONS = ("config", "kernel", "init", "sbom", "root")


def compile_static(source, target):
    subprocess.run(["musl-gcc", "-D_GNU_SOURCE", "-static", "-Os", "-s", "-o", target, os.path.join(HERE, source)], check=True)


def flip(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 1]))


class CapsuleTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="smolvm-capsule-")
        os.chmod(cls.folder, 0o755)
        cls.env = {**os.environ, "HOME": cls.folder, "XDG_CONFIG_HOME": cls.folder + "/config",
                   "SMOLVM_DATA_DIR": cls.folder + "/data", "SOURCE_DATE_EPOCH": "1700000000"}
        cls.root = os.path.join(cls.folder, "root")
        os.makedirs(cls.root + "/tmp")
        compile_static("speak.c", cls.root + "/speak")
        compile_static("echo_server.c", cls.root + "/echo_server")
        cls.app = os.path.join(cls.folder, "app")
        cls.pack(cls.app, "--entrypoint", "/speak", "-e", "WORD=packed")

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    @classmethod
    def smolvm(cls, *words, check=True):
        done = subprocess.run([SMOLVM, *words], env=cls.env, capture_output=True, text=True, timeout=LIMIT, check=False)
        if check and done.returncode != 0:
            raise AssertionError(f"smolvm {words}: {done.returncode}\n{done.stdout}{done.stderr}")
        return done

    @classmethod
    def pack(cls, output, *options, root=None):
        return cls.smolvm("pack", "create", "--rootfs", root or cls.root, "--mem", "64", "-o", output, *options)

    def run_app(self, *words, app=None, before=(), stdin=None, env=None):
        return subprocess.run([*before, app or self.app, *words], env=self.env if env is None else env, capture_output=True,
                              input=stdin, stdin=subprocess.DEVNULL if stdin is None else None, text=True, timeout=LIMIT,
                              check=False)

    def assert_said(self, done, *lines, status=0):
        self.assertEqual(done.returncode, status, done)
        for line in lines:
            self.assertIn(line + "\n", done.stdout, done)

    # --- As a program ---

    def test_all_words_are_the_programs(self):
        done = self.run_app("--mem", "a b", "", "exit=7", "stop")
        self.assert_said(done, "argument --mem", "argument a b", "argument ", "argument stop", "word packed", "folder / user 0", status=7)

    def test_own_words(self):
        self.assert_said(self.run_app("--", "start"), "argument start")
        self.assert_said(self.run_app("run", "-e", "WORD=given", "-w", "/tmp", "-u", "5:5", "--", "info"), "argument info",
                         "word given", "folder /tmp user 5")
        done = self.run_app("run", "--nonsense")
        self.assertEqual((done.returncode, done.stdout), (2, ""), done)
        self.assertIn("--nonsense", done.stderr)
        done = self.run_app("run", "--entrypoint", "/none")
        self.assertEqual(done.returncode, 127, done)

    def test_streams_and_ends(self):
        self.assert_said(self.run_app("-i", stdin="one\ntwo\n"), "input one", "input two")
        self.assertEqual(self.run_app("signal").returncode, 128 + 9)
        self.assertEqual(self.run_app("run", "--timeout", "1s", "wait").returncode, 124)

    def test_signals_reach_the_program(self):
        process = subprocess.Popen([self.app, "wait"], env=self.env, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, text=True)
        self.assertEqual(process.stdout.readline(), "argument wait\n")
        process.terminate()
        self.assertEqual(process.wait(LIMIT), 128 + 15)
        process.stdout.close()

    def test_volumes(self):
        shared = os.path.join(self.folder, "shared")
        os.makedirs(shared, exist_ok=True)
        self.assert_said(self.run_app("run", "-v", f"{shared}:/tmp", "--", "write=/tmp/new"), "write good")
        self.assertTrue(os.path.exists(shared + "/new"))

    def test_info(self):
        text = self.run_app("info").stdout
        self.assertIn("every byte agrees", text)
        told = json.loads(self.run_app("info", "--json").stdout)
        self.assertEqual([section["name"] for section in told["sections"]], list(SECTIONS))
        self.assertEqual(told["entrypoint"], "/speak")

    def test_same_inputs_same_bytes(self):
        again = os.path.join(self.folder, "again", "app")
        os.makedirs(os.path.dirname(again))
        self.pack(again, "--entrypoint", "/speak", "-e", "WORD=packed")
        with open(self.app, "rb") as one, open(again, "rb") as two:
            self.assertEqual(one.read(), two.read())

    # --- In the background ---

    def test_start_exec_stop(self):
        state = os.path.join(self.folder, "state")
        os.makedirs(state, mode=0o700)
        # With a folder for its socket, and without any.
        for number, env in enumerate(({"XDG_RUNTIME_DIR": state}, {})):
            with self.subTest(env=env):
                name = f"{os.getpid()}-{number}"
                words = ["-n", name]
                self.assertEqual(self.run_app("status", *words, env=env).returncode, 1)
                done = self.run_app("start", *words, "--", "wait", env=env)
                self.assertRegex(done.stdout, rf"^Started: {name} \(PID: \d+\)\n$", done)
                try:
                    self.assertEqual(self.run_app("start", *words, env=env).returncode, 1)
                    self.assertIn("running", self.run_app("status", *words, env=env).stdout)
                    self.assert_said(self.run_app("exec", *words, "-e", "WORD=x", "--", "/speak", "exit=5", env=env),
                                     "argument exit=5", "word x", status=5)
                finally:
                    done = self.run_app("stop", *words, env=env)
                self.assertEqual((done.returncode, done.stdout), (0, f"Stopped: {name}\n"), done)
                self.assertEqual(json.loads(self.run_app("status", "--json", *words, env=env).stdout)["state"], "stopped")
        self.assertEqual([entry for entry in os.listdir(state + "/smol-capsule") if not entry.endswith(".log")], [])

    def smolfile(self, text):
        path = os.path.join(tempfile.mkdtemp(dir=self.folder), "Smolfile")
        with open(path, "w", encoding="utf-8") as file:
            file.write(text)
        return path

    def run_state(self):
        state = tempfile.mkdtemp(dir=self.folder)
        return {**self.env, "XDG_RUNTIME_DIR": state}

    def started(self, app, *words, env):
        done = self.run_app("start", *words, app=app, env=env)
        self.assertEqual(done.returncode, 0, done)
        self.addCleanup(self.run_app, "stop", "-f", app=app, env=env)
        return done.stdout

    def test_health_and_stop_signal(self):
        app, env, shared = os.path.join(self.folder, "well"), self.run_state(), tempfile.mkdtemp(dir=self.folder)
        self.pack(app, "-s", self.smolfile("""
            entrypoint = ["/speak", "catch=/data/own"]
            stop_signal = "SIGUSR1"
            volumes = ["./not-here:/data/own"]
            [health]
            exec = ["/speak", "exists=/data/own/fine"]
            interval = "10ms"
            retries = 2
            """))
        told = json.loads(self.run_app("info", "--json", app=app).stdout)
        self.assertEqual((told["stop_signal"], told["volumes"]), ("SIGUSR1", ["/data/own"]))
        self.assertEqual((told["healthcheck"]["test"], told["healthcheck"]["retries"]), (["/speak", "exists=/data/own/fine"], 2))
        self.started(app, "-v", f"{shared}:/data/own", env=env)
        self.assertTrue(smolvm.wait_until(lambda: os.path.exists(shared + "/ready")))
        done = self.run_app("status", app=app, env=env)
        self.assertEqual(done.returncode, 1, done)
        self.assertRegex(done.stdout, r"running \(PID: \d+\), unhealthy: the health command ended with status 4\n")
        with open(shared + "/fine", "w", encoding="utf-8"):
            pass
        done = self.run_app("status", "--json", app=app, env=env)
        told = json.loads(done.stdout)
        self.assertEqual((done.returncode, told["state"], told["health"], told["health_problem"]), (0, "running", "healthy", ""), done)
        self.assertFalse(os.path.exists(shared + "/caught"))
        done = self.run_app("stop", "--timeout", "100s", app=app, env=env)
        self.assertEqual(done.returncode, 0, done)
        with open(shared + "/caught", encoding="utf-8") as file:
            self.assertEqual(file.read(), str(int(signal.SIGUSR1)))

    def test_a_program_that_does_not_heed_the_stop_signal(self):
        app, env = os.path.join(self.folder, "deaf"), self.run_state()
        self.pack(app, "-s", self.smolfile('stop_signal = "SIGCONT"\n[health]\nexec = ["/none"]\nstartup_grace = "1h"\n'),
                  "--entrypoint", "/speak", "--", "wait")
        self.started(app, env=env)
        done = self.run_app("status", app=app, env=env)
        self.assertEqual(done.returncode, 0, done)
        self.assertIn(", starting: the health command ended with status 127", done.stdout)
        done = self.run_app("stop", "--timeout", "500ms", app=app, env=env)
        self.assertEqual((done.returncode, done.stdout), (0, "Stopped: deaf\n"), done)

    def test_exposed_ports(self):
        app, env = os.path.join(self.folder, "exposing"), self.run_state()
        self.pack(app, "-s", self.smolfile('entrypoint = ["/echo_server"]\nexpose = ["8080", "53/udp"]\n[labels]\n"a.b" = "c d"\n'))
        text = self.run_app("info", app=app).stdout
        self.assertIn("  ports 8080/tcp 53/udp\n", text)
        self.assertIn("  label a.b=c d\n", text)
        told = json.loads(self.run_app("info", "--json", app=app).stdout)
        self.assertEqual((told["ports"], told["labels"]), (["8080/tcp", "53/udp"], {"a.b": "c d"}))
        said = self.started(app, "-P", env=env)
        found = re.search(r"^Published: (\d+):8080\n(?:.*\n)*Published: (\d+):53/udp\n", said, re.M)
        self.assertTrue(found, said)
        status = self.run_app("status", app=app, env=env).stdout
        self.assertIn(f"  port {found[1]}:8080\n  port {found[2]}:53/udp\n", status)
        self.assertEqual(json.loads(self.run_app("status", "--json", app=app, env=env).stdout)["ports"],
                         [f"{found[1]}:8080", f"{found[2]}:53/udp"])

        def answers():
            try:
                with urllib.request.urlopen(f"http://127.0.0.1:{found[1]}/there", timeout=LIMIT) as answer:
                    return answer.read() == b"GET /there HTTP/1.1\n"
            except OSError:  # it does not listen yet
                return False
        self.assertTrue(smolvm.wait_until(answers), self.run_app("status", app=app, env=env))
        self.assertEqual(self.run_app("stop", "-f", app=app, env=env).returncode, 0)
        self.assertEqual(json.loads(self.run_app("status", "--json", app=app, env=env).stdout)["ports"], [])

    # --- Other shapes ---

    def test_machine_files_and_split_ones(self):
        plain, split = os.path.join(self.folder, "m.smolmachine"), os.path.join(self.folder, "split")
        self.pack(plain, "--entrypoint", "/speak")
        done = self.smolvm("pack", "run", "--from", plain, "-e", "WORD=w", "--", "exit=6", check=False)
        self.assert_said(done, "argument exit=6", "word w", status=6)
        self.pack(split, "--split", "--entrypoint", "/speak")
        self.assertLess(os.path.getsize(split), 500_000)
        self.assert_said(self.run_app("--help", "exit=2", app=split, env=self.installed()), "argument --help", status=2)

    def installed(self, **more):
        """The environment of a host where smolvm is installed, for split packs."""
        path = tempfile.mkdtemp(dir=self.folder)
        os.symlink(os.path.abspath(SMOLVM), path + "/smolvm")
        return {**self.env, "PATH": path + ":" + os.environ["PATH"], **more}

    def test_parts_of_split_ones(self):
        folder = tempfile.mkdtemp(dir=self.folder)
        split, kernel = folder + "/split", folder + "/kernel"
        with open(smolvm.kernel_path("micro"), "rb") as source, open(kernel, "wb") as target:
            target.write(source.read() + b"not installed")
        self.pack(split, "--split", "--entrypoint", "/speak", "--kernel", kernel)
        digest = json.loads(self.smolvm("pack", "inspect", "--json", split).stdout)["config"]["extra"]["kernel-digest"]
        shared = os.path.join(self.env["SMOLVM_DATA_DIR"], "packs", digest)
        elsewhere = self.installed(SMOLVM_DATA_DIR=folder + "/other")
        self.assertIn("runs /speak", self.run_app("info", app=split, env=self.installed()).stdout)
        done = self.run_app("info", app=split, env=elsewhere)  # neither beside it nor in that user's folder
        self.assertEqual((done.returncode, done.stdout), (1, ""), done)
        for word in (digest, folder + " and ", folder + "/other/packs", "kernel"):
            self.assertIn(word, done.stderr)
        shutil.copy(shared, folder)
        self.assertIn("runs /speak", self.run_app("info", app=split, env=elsewhere).stdout)
        with open(os.path.join(folder, digest), "ab") as file:
            file.write(b"more")
        for words, env in ((["info"], elsewhere), (["exit=0"], self.installed())):
            done = self.run_app(*words, app=split, env=env)
            self.assertEqual((done.returncode, done.stdout), (1, ""), done)
            for word in (digest, os.path.join(folder, digest), "damaged", "kernel"):
                self.assertIn(word, done.stderr)

    def test_rebase_of_a_split_one(self):
        folder = tempfile.mkdtemp(dir=self.folder)
        split = folder + "/split"
        self.smolvm("pack", "keygen", "-W", "-p", folder + "/pub", "-s", folder + "/key")
        self.pack(split, "--split", "--entrypoint", "/speak", "--sign-key", folder + "/key")
        with open(split, "rb") as file:
            before = file.read()
        done = self.smolvm("pack", "rebase", "--kernel", "full", split)
        self.assertRegex(done.stdout, "kernel: [0-9a-f]{16} -> [0-9a-f]{16}\n")
        self.assertRegex(done.stdout, "init: [0-9a-f]{16} as before\n")
        self.assertIn("was signed and is not any more", done.stderr)
        told = json.loads(self.smolvm("pack", "inspect", "--json", split).stdout)
        self.assertIsNone(told["signature"])
        self.assertEqual(told["config"]["extra"]["kernel"], "full")
        self.assertTrue(os.path.exists(os.path.join(self.env["SMOLVM_DATA_DIR"], "packs", told["config"]["extra"]["kernel-digest"])))
        self.assert_said(self.run_app("exit=3", app=split, env=self.installed()), "argument exit=3", status=3)
        self.smolvm("pack", "rebase", "--kernel", "micro", "--sign-key", folder + "/key", split)
        with open(split, "rb") as file:
            self.assertEqual(file.read(), before)

    def test_a_smolfile_is_packed(self):
        text = """
            entrypoint = ["/speak", "first"]
            cmd = ["second"]
            env = ["WORD=file", "OTHER=1"]
            workdir = "/srv/own"
            user = "5:6"
            memory = 64
            ports = ["18080:80", "53/udp"]
            expose = ["80", "81"]
            volumes = ["/not/here:/data"]
            [dev]
            env = ["WORD=dev"]
            ports = ["1:1"]
            init = ["false"]
            [artifact]
            memory = 72
            env = ["OTHER=2"]
            cmd = ["packed"]
            """
        outputs = []
        clockless = {key: value for key, value in self.env.items() if key != "SOURCE_DATE_EPOCH"}
        for number in range(2):
            out = os.path.join(tempfile.mkdtemp(dir=self.folder), "filed")
            done = subprocess.run([SMOLVM, "pack", "create", "-s", self.smolfile(text), "--rootfs", self.root, "-o", out],
                                  env=clockless, capture_output=True, text=True, timeout=LIMIT, check=False, umask=0o22 + number * 0o55)
            self.assertEqual(done.returncode, 0, done)
            with open(out, "rb") as file:
                outputs.append(file.read())
        self.assertEqual(outputs[0], outputs[1])
        config = json.loads(self.smolvm("pack", "inspect", "--json", out).stdout)["config"]
        self.assertEqual(config["env"], ["WORD=file", "OTHER=2"])
        self.assertEqual(config["ports"], [{"host": 18080, "guest": 80, "protocol": "tcp"}, {"host": 53, "guest": 53, "protocol": "udp"},
                                           {"host": 0, "guest": 81, "protocol": "tcp"}])
        self.assertEqual((config["memory_mib"], config["volumes"], config["user"]), (72, ["/data"], "5:6"))
        done = self.run_app("run", "-p", f"{smolvm.free_port()}:80", "--", app=out)
        self.assert_said(done, "argument first", "argument packed", "word file", "folder /srv/own user 5")
        self.assertNotIn("second", done.stdout)
        for more, word in (('init = ["true"]', "init"), ("[network]\nallow_hosts = ['h']", "allow-host"),
                           ("[secrets]\nA = { from_env = 'HOME' }", "secrets"), ("[auth]\nssh_agent = true", "ssh-agent"),
                           ("storage = 1", "storage"), ("ports = ['0.0.0.0:8080:80']", "0.0.0.0")):
            done = self.smolvm("pack", "create", "-s", self.smolfile(f'entrypoint = ["/speak"]\n{more}\n'), "--rootfs", self.root,
                               "-o", out + ".refused", check=False)
            self.assertEqual(done.returncode, 1, done)
            self.assertIn(word, done.stderr)
            self.assertFalse(os.path.exists(out + ".refused"))

    # --- Signatures ---

    def test_only_signed_ones_by_the_policy(self):
        folder = tempfile.mkdtemp(dir=self.folder)
        for name in ("right", "wrong"):
            self.smolvm("pack", "keygen", "-W", "-p", f"{folder}/{name}.pub", "-s", f"{folder}/{name}.key")
        os.makedirs(folder + "/config/smolvm")
        with open(folder + "/config/smolvm/config.toml", "w", encoding="utf-8") as file:
            file.write(f'[pack]\nrequire-signed = true\ntrusted-keys = ["{folder}/right.pub"]\n')
        env = self.installed(XDG_CONFIG_HOME=folder + "/config")
        files = {}
        for name in ("none", "wrong", "right"):
            files[name] = os.path.join(folder, name)
            shutil.copy(self.app, files[name])
            if name != "none":
                self.smolvm("pack", "sign", files[name], "-s", f"{folder}/{name}.key")
        # Of a refused file nothing is used: that its root and its program are damaged, too, nobody sees.
        root = [each for each in json.loads(self.run_app("info", "--json").stdout)["sections"] if each["name"] == "root"][0]
        for name in ("none", "wrong"):
            flip(files[name], root["offset"])
            flip(files[name], 5000)

        def uses(path):
            return (["pack", "run", "--from", path, "--accel", "soft", "--", "exit=9"],
                    ["machine", "run", "--from", path, "--accel", "soft", "--", "exit=9"],
                    ["machine", "create", "--name", "by-policy", "--from", path], ["pack", "rebase", path])

        def smolvm_with(words):
            return subprocess.run([SMOLVM, *words], env=env, capture_output=True, text=True, timeout=LIMIT, check=False,
                                  stdin=subprocess.DEVNULL)
        for name, word in (("none", "is not signed"), ("wrong", "which is not trusted")):
            with open(files[name], "rb") as file:
                before = file.read()
            for words in uses(files[name]):
                with self.subTest(file=name, verb=words[:2]):
                    done = smolvm_with(words)
                    self.assertEqual((done.returncode, done.stdout), (1, ""), done)
                    self.assertIn(word, done.stderr)
                    self.assertNotIn("damaged", done.stderr)
            with open(files[name], "rb") as file:
                self.assertEqual(file.read(), before)
            self.assertNotIn("by-policy", smolvm_with(["machine", "ls"]).stdout)
        for words, status in zip(uses(files["right"]), (9, 9, 0, 0)):
            with self.subTest(verb=words[:2]):
                self.assertEqual(smolvm_with(words).returncode, status)
        self.assertEqual(smolvm_with(["machine", "delete", "-f", "by-policy"]).returncode, 0)
        # The rebase took the signature away, and with it the trust.
        self.assertIn("is not signed", smolvm_with(uses(files["right"])[0]).stderr)

    def test_rebase_keeps_root_and_configuration(self):
        app = os.path.join(self.folder, "rebased")
        shutil.copy(self.app, app)
        before = json.loads(self.run_app("info", "--json", app=app).stdout)["sections"]
        # Any file for a kernel: it is not booted, and small ones are soon compressed.
        done = self.smolvm("pack", "rebase", "--kernel", self.root + "/speak", app)
        self.assertRegex(done.stdout, "kernel: [0-9a-f]{16} -> [0-9a-f]{16}\n")
        self.assertRegex(done.stdout, "runtime: [0-9a-f]{16} as before\n")
        after = {section["name"]: section for section in json.loads(self.run_app("info", "--json", app=app).stdout)["sections"]}
        for section in before:
            same = after[section["name"]]["digest"] == section["digest"]
            self.assertEqual(same, section["name"] in ("init", "sbom", "root"), section)
        self.smolvm("pack", "rebase", "--kernel", "micro", app)
        with open(self.app, "rb") as one, open(app, "rb") as two:
            self.assertEqual(one.read(), two.read())

    def test_a_named_machine_out_of_it(self):
        self.smolvm("machine", "create", "--name", "packed", "--from", self.app, "-e", "MORE=1", "--accel", "soft")
        self.addCleanup(self.smolvm, "machine", "delete", "-f", "packed", check=False)
        told = json.loads(self.smolvm("machine", "ls", "--json").stdout)[0]
        self.assertEqual((told["name"], told["memory_mib"]), ("packed", 64))
        self.smolvm("machine", "start", "packed")
        done = self.smolvm("machine", "exec", "packed", "--", "/speak", "exit=5", check=False)
        self.assert_said(done, "argument exit=5", "word packed", status=5)
        self.smolvm("machine", "stop", "packed")
        done = self.smolvm("machine", "run", "--accel", "soft", "--from", self.app, "-e", "WORD=run", "--", "exit=6", check=False)
        self.assert_said(done, "argument exit=6", "word run", status=6)

    def test_no_machine_out_of_a_damaged_one(self):
        root = [each for each in json.loads(self.run_app("info", "--json").stdout)["sections"] if each["name"] == "root"][0]
        broken = os.path.join(self.folder, "broken-root")
        shutil.copy(self.app, broken)
        flip(broken, root["offset"] + 100)
        done = self.smolvm("machine", "create", "--name", "broken", "--from", broken, check=False)
        self.assertEqual((done.returncode, done.stdout), (1, ""), done)
        self.assertIn("root", done.stderr)
        self.assertNotIn("broken", self.smolvm("machine", "ls").stdout)
        done = self.smolvm("machine", "create", "--name", "two", "--from", self.app, "--rootfs", self.root, check=False)
        self.assertEqual(done.returncode, 1, done)
        self.assertIn("--rootfs", done.stderr)

    # --- Where there is nothing ---

    def empty_root(self):
        root = tempfile.mkdtemp(prefix="empty-", dir=self.folder)
        os.chmod(root, 0o755)
        shutil.copy(self.app, root + "/app")
        return root

    @unittest.skipUnless(os.geteuid() == 0, "chroot needs root")
    def test_runs_in_an_empty_root_directory(self):
        root = self.empty_root()
        for user in ([], ["--userspec=65534:65534"]):
            with self.subTest(user=user):
                done = self.run_app("here", "exit=3", app="/app", before=["chroot", *user, root], env={"PATH": os.environ["PATH"]})
                self.assert_said(done, "argument here", "word packed", status=3)
        self.assertEqual(os.listdir(root), ["app"], "something was left behind")

    @unittest.skipUnless(os.geteuid() == 0, "mounting needs root")
    def test_runs_from_read_only_media(self):
        media = tempfile.mkdtemp(prefix="media-", dir=self.folder)
        script = f"mount -t tmpfs none {media} && cp {self.app} {media}/app && mount -o remount,ro {media} && exec {media}/app exit=4"
        done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=LIMIT, check=False,
                              stdin=subprocess.DEVNULL, env={"PATH": os.environ["PATH"]})
        self.assert_said(done, "argument exit=4", status=4)

    @unittest.skipUnless(os.geteuid() == 0, "mounting needs root")
    def test_needs_no_place_that_programs_may_be_run_from(self):
        media = tempfile.mkdtemp(prefix="noexec-", dir=self.folder)
        # The capsule's own folder alone: what else can usually be written is noexec.
        script = (f"mount -t tmpfs none /mnt && cp {self.app} /mnt/app && mount -t tmpfs -o noexec none /tmp && "
                  "mount -t tmpfs -o noexec none /dev/shm && exec /mnt/app exit=4")
        done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=LIMIT, check=False,
                              stdin=subprocess.DEVNULL, env={"PATH": os.environ["PATH"]})
        self.assert_said(done, "argument exit=4", status=4)
        # A file that cannot be run itself: the installed runtime runs it.
        script = (f"mount -t tmpfs -o noexec none {media} && cp {self.app} {media}/app && ! {media}/app exit=4 2>/dev/null && "
                  f"exec {SMOLVM} pack run --accel soft --from {media}/app -- exit=5")
        done = subprocess.run(["unshare", "-m", "sh", "-c", script], capture_output=True, text=True, timeout=LIMIT, check=False,
                              stdin=subprocess.DEVNULL, env=self.env)
        self.assert_said(done, "argument exit=5", status=5)

    # --- Damage ---

    def test_a_flipped_byte_in_each_section_is_named(self):
        with open(self.app, "rb") as file:
            good = file.read()
        broken = os.path.join(self.folder, "broken")
        told = json.loads(self.run_app("info", "--json").stdout)
        for section in told["sections"]:
            with self.subTest(section=section["name"]):
                at = section["offset"] + section["stored"] // 2
                with open(broken, "wb") as file:
                    file.write(good[:at] + bytes([good[at] ^ 1]) + good[at + 1:])
                os.chmod(broken, 0o755)
                for words in (["exit=0"], ["info"]):
                    done = self.run_app(*words, app=broken)
                    self.assertEqual((done.returncode, done.stdout), (1, ""), done)
                    self.assertRegex(done.stderr, f"^Error: .*'?{section['name']}", done)
                done = self.smolvm("pack", "verify", broken, check=False)
                self.assertEqual(done.returncode, 1, done)
                self.assertIn(section["name"], done.stderr)

    def test_damage_that_is_found_late_ends_the_machine(self):
        root, large = os.path.join(self.folder, "large-root"), os.path.join(self.folder, "large")
        shutil.copytree(self.root, root)
        late = os.urandom(20 << 20)
        with open(root + "/late", "wb") as file:
            file.write(late)
        self.pack(large, "--entrypoint", "/speak", "--split", root=root)
        told = json.loads(self.smolvm("pack", "inspect", "--json", large).stdout)
        section = [each for each in told["sections"] if each["name"] == "root"][0]
        self.assertGreater(section["size"], 16 << 20)
        env = self.installed(XDG_RUNTIME_DIR=tempfile.mkdtemp(dir=self.folder))
        self.assert_said(self.run_app("sum=/late", app=large, env=env), "sum good")
        with open(large, "rb") as file:
            at = file.read().find(late[:4096]) + (15 << 20)
        flip(large, at)
        damaged = r"section 'root' is damaged \(within \d+ bytes at \d+\)"
        for command in ([large], *([SMOLVM, verb, "run", "--from", large, "--accel", "soft", "--"] for verb in ("pack", "machine"))):
            with self.subTest(command=command):
                done = subprocess.run([*command, "sum=/late"], env=env, stdin=subprocess.DEVNULL, capture_output=True, text=True,
                                      timeout=LIMIT, check=False)
                self.assertEqual(done.returncode, 1, done)
                self.assertRegex(done.stderr, "(?m)^Error: .*" + damaged)
                self.assertNotIn("sum good", done.stdout)
        # In the background: the machine ends, and its log says why.
        self.started(large, "--", "wait", env=env)
        self.assertNotEqual(self.run_app("exec", "--", "/speak", "sum=/late", app=large, env=env).returncode, 0)
        self.assertTrue(smolvm.wait_until(lambda: "not running" in self.run_app("status", app=large, env=env).stdout))
        with open(env["XDG_RUNTIME_DIR"] + "/smol-capsule/large.log", encoding="utf-8", errors="replace") as file:
            self.assertRegex(file.read(), "Error: .*" + damaged)
        # A machine that copies the root checks all of it first.
        done = self.smolvm("machine", "create", "--from", large, "--name", "late", check=False)
        self.assertEqual((done.returncode, done.stdout), (1, ""), done)
        self.assertRegex(done.stderr, damaged)

    def test_a_short_file_is_refused(self):
        with open(self.app, "rb") as file:
            good = file.read()
        short = os.path.join(self.folder, "short")
        for keep in (len(good) - 1, len(good) - 100_000):
            with open(short, "wb") as file:
                file.write(good[:keep])
            os.chmod(short, 0o755)
            done = self.run_app(app=short)
            self.assertEqual(done.returncode, 1, done)
            self.assertTrue(done.stderr.startswith("Error: "), done)

    # --- The HTTP echo server ---

    def test_a_server_is_small_and_answers(self):
        server, port = os.path.join(self.folder, "server"), smolvm.free_port()
        root = os.path.join(self.folder, "server-root")
        os.makedirs(root)
        shutil.copy(self.root + "/echo_server", root)
        self.pack(server, "--entrypoint", "/echo_server", root=root)
        self.assertLessEqual(os.path.getsize(server), MOST_BYTES)
        process = subprocess.Popen([server, "run", "-p", f"{port}:8080"], env=self.env, stdin=subprocess.DEVNULL,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        try:
            self.assertEqual(process.stdout.readline(), "listening on 8080\n", process.poll())
            request = urllib.request.Request(f"http://127.0.0.1:{port}/path", data=b"body", method="POST")
            with urllib.request.urlopen(request, timeout=LIMIT) as answer:
                self.assertEqual(answer.read(), b"POST /path HTTP/1.1\nbody")
        finally:
            process.terminate()
            process.wait(LIMIT)
            process.stdout.close()
            process.stderr.close()


if __name__ == "__main__":
    smolvm.main()
