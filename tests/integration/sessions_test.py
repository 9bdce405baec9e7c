#!/usr/bin/env python3
"""Sessions with a machine that runs: terminals for `exec` and `shell`, Unix sockets in both directions, the ssh agent."""
import os
import signal
import socket
import subprocess
import threading

import machines_test
import smolvm
import terminal


class TerminalTest(terminal.Terminal, machines_test.NamedTest):
    def setUp(self):
        super().setUp()
        self.create()
        self.good("start", "web")
        self.open_terminal()

    def begin(self, *words):
        self.process = subprocess.Popen([smolvm.SMOLVM, "machine", *words], env=self.env, **self.on_terminal())
        self.addCleanup(self.end_process, self.process)

    def test_exec_on_a_terminal(self):
        # A shell runs a trap between two commands: one that waits in `read` alone would miss a key that comes just before it.
        self.begin("exec", "-i", "-t", "web", "--", "sh", "-c",
                   "stty size; trap 'caught=caught' INT; echo ready; until [ \"$caught\" ]; do sleep 0.1; done; echo $caught; read x; echo got $x; exit 4")
        self.read_until(b"ready")
        self.assertIn(b"33 101", self.text)
        os.write(self.ours, b"\x03")
        self.read_until(b"caught")
        self.resize(44, 77)
        os.killpg(self.process.pid, signal.SIGWINCH)
        # The size travels beside the input: it is there when the guest says so.
        self.assertTrue(smolvm.wait_until(lambda: "44 77" in self.good("exec", "web", "--", "sh", "-c", "stty size </dev/pts/0")))
        os.write(self.ours, b"word\r")
        self.assertEqual(self.end(), 4)
        self.assertIn(b"got word", self.text)

    def test_a_shell_on_a_terminal(self):
        self.begin("shell", "web")
        self.read_until(b"# ")
        os.write(self.ours, b"echo $((6*7)); tty\r")
        self.read_until(b"/dev/pts/0")
        self.assertIn(b"\r\n42\r\n", self.text)
        os.write(self.ours, b"exit 3\r")
        self.assertEqual(self.end(), 3)

    def test_a_terminal_is_given_back_when_the_machine_dies(self):
        self.begin("exec", "-i", "-t", "web", "--", "sh", "-c", "echo ready; sleep 1000")
        self.read_until(b"ready")
        os.kill(self.pid(), signal.SIGKILL)
        self.assertEqual(self.end(), 1)
        self.assertIn(b"Error: ", self.text)


class SocketTest(machines_test.NamedTest):
    def setUp(self):
        super().setUp()
        self.peer = self.path("unix_peer")
        subprocess.run(["musl-gcc", "-static", "-O2", "-o", self.peer, os.path.join(smolvm.SOURCE, "tests/integration/unix_peer.c")], check=True)

    def start(self, *options, env=None):
        self.create("web", *options)
        self.good("start", "web", env=env)
        self.good("cp", self.peer, "web:/bin/unix_peer", "--mode", "755")

    def ask(self, path, data):
        result = self.vm("exec", "-i", "web", "--", "unix_peer", "ask", path, stdin=data)
        self.assertEqual((result.status, result.err), (0, b""), repr(result))
        return result.out

    def test_a_socket_of_the_host(self):
        path = self.path("host.sock")
        server = socket.socket(socket.AF_UNIX)
        self.addCleanup(server.close)
        server.bind(path)
        server.listen(8)

        def answer():
            while True:
                try:
                    client = server.accept()[0]
                except OSError:
                    return
                with client:
                    data = b""
                    while part := client.recv(65536):
                        data += part
                    client.sendall(data[::-1])
        threading.Thread(target=answer, daemon=True).start()
        self.start("--mount-socket", f"{path}:/run/host.sock")
        data = os.urandom(300_000)
        self.assertEqual(self.ask("/run/host.sock", data), data[::-1])
        self.assertEqual(self.ask("/run/host.sock", b"abc"), b"cba")

    def test_a_socket_of_the_guest(self):
        path = self.path("guest.sock")
        self.start("--expose-socket", f"{path}:/run/guest.sock")

        def ask(data):
            with socket.socket(socket.AF_UNIX) as client:
                client.settimeout(smolvm.LIMIT)
                client.connect(path)
                client.sendall(data)
                client.shutdown(socket.SHUT_WR)
                answer = b""
                while part := client.recv(65536):
                    answer += part
                return answer
        # The guest has no such socket yet: the connection ends.
        try:
            self.assertEqual(ask(b""), b"")
        except ConnectionError:
            pass
        self.good("exec", "-d", "web", "--", "unix_peer", "serve", "/run/guest.sock")
        self.assertTrue(smolvm.wait_until(lambda: self.vm("exec", "web", "--", "test", "-S", "/run/guest.sock").status == 0))
        self.assertEqual(os.stat(path).st_mode & 0o777, 0o600)
        results = {}
        threads = [threading.Thread(target=lambda i=i: results.update({i: ask(b"abc%d" % i * 1000)})) for i in range(8)]
        for each in threads:
            each.start()
        for each in threads:
            each.join()
        self.assertEqual(results, {i: b"ABC%d" % i * 1000 for i in range(8)})
        self.good("stop", "web")
        self.assertTrue(smolvm.wait_until(lambda: not os.path.exists(path)), "the socket is left")

    def test_a_place_that_is_taken(self):
        path = self.path("taken", b"a file")
        self.create("web", "--expose-socket", f"{path}:/run/guest.sock")
        self.bad("start", "web", says=[path, "--expose-socket"])
        self.assertEqual(self.state(), "created")
        os.unlink(path)
        self.good("start", "web")
        self.bad("create", "--name", "two", "--expose-socket", f"{path}:relative", says=["relative", "absolute"])

    def test_the_ssh_agent(self):
        agent_socket, key = self.path("agent.sock"), self.path("key")
        agent = subprocess.Popen(["ssh-agent", "-D", "-a", agent_socket], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        self.addCleanup(self.end_process, agent)
        self.assertTrue(smolvm.wait_until(lambda: os.path.exists(agent_socket)))
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "for the guest", "-f", key], check=True)
        env = {"SSH_AUTH_SOCK": agent_socket}
        self.assertTrue(smolvm.wait_until(lambda: subprocess.run(["ssh-add", "-q", key], env={**self.env, **env}, check=False).returncode == 0))
        self.start("--ssh-agent", env=env)
        # SSH_AGENTC_REQUEST_IDENTITIES, of the ssh agent's protocol.
        result = self.vm("exec", "-i", "web", "--", "sh", "-c", "unix_peer agent $SSH_AUTH_SOCK", stdin=b"\0\0\0\1\x0b")
        self.assertIn(b"for the guest", result.out, repr(result))
        self.assertEqual(result.out[4], 12)


if __name__ == "__main__":
    smolvm.main()
