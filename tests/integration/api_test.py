#!/usr/bin/env python3
"""The monitor's API, driven through every call in every state. Every answer is held to docs/api/smol-vmm.yaml."""
import array
import fcntl
import http.client
import json
import os
import signal
import socket
import struct
import subprocess
import threading
import unittest

import smolvm
from monitor_api import (DOCUMENT, HALT, MONITOR, POWER_OFF, PREFIX, RESET, SAY_A, TRIPLE_FAULT, Api, ApiTest, check_answer, corrupt,
                         generate, resolve, seeded)

NOT_SUPPORTED = ["vm.add-device", "vm.add-fs", "vm.add-pmem", "vm.add-vdpa", "vm.add-user-device", "vm.add-generic-vhost-user",
                 "vm.resize-zone", "vm.snapshot", "vm.restore", "vm.coredump", "vm.receive-migration", "vm.send-migration"]


class StateTest(ApiTest):
    # What each call answers in each state, when it changes nothing there. Calls that change the state are in the tests below.
    WRONG = {
        "nothing": {"vm.info": 404, "vm.counters": 404, "vm.boot": 404, "vm.pause": 404, "vm.resume": 404, "vm.shutdown": 404,
                    "vm.reboot": 404, "vm.power-button": 404, "vm.nmi": 404, "vm.resize": 404, "vm.resize-disk": 404, "vm.add-disk": 404,
                    "vm.add-net": 404, "vm.add-vsock": 404, "vm.add-share": 404, "vm.remove-device": 404, "vm.delete": 204},
        "Created": {"vm.info": 200, "vm.counters": 409, "vm.create": 409, "vm.pause": 409, "vm.resume": 409, "vm.shutdown": 409,
                    "vm.reboot": 409, "vm.power-button": 409, "vm.nmi": 409, "vm.resize": 409, "vm.resize-disk": 409,
                    "vm.remove-device": 404},
        "Running": {"vm.info": 200, "vm.counters": 200, "vm.create": 409, "vm.boot": 409, "vm.resume": 409, "vm.power-button": 204,
                    "vm.resize": 204, "vm.add-disk": 409, "vm.add-net": 409, "vm.add-vsock": 409, "vm.add-share": 409,
                    "vm.remove-device": 404, "vm.resize-disk": 404},
        "Paused": {"vm.info": 200, "vm.counters": 200, "vm.create": 409, "vm.boot": 409, "vm.pause": 409, "vm.power-button": 409,
                   "vm.nmi": 409, "vm.resize": 204, "vm.add-disk": 409, "vm.add-net": 409, "vm.add-vsock": 409, "vm.add-share": 409,
                   "vm.remove-device": 404, "vm.resize-disk": 404},
        "Shutdown": {"vm.info": 200, "vm.counters": 409, "vm.create": 409, "vm.pause": 409, "vm.resume": 409, "vm.shutdown": 409,
                     "vm.reboot": 409, "vm.power-button": 409, "vm.nmi": 409, "vm.resize": 409, "vm.resize-disk": 409,
                     "vm.remove-device": 404},
    }
    BODIES = {"vm.resize": {}, "vm.resize-disk": {"id": "_disk9", "desired_size": 1 << 20}, "vm.add-disk": {"path": "/nonexistent"},
              "vm.add-net": {"mode": "user"}, "vm.add-vsock": {"cid": 3, "socket": "/nonexistent/s"},
              "vm.add-share": {"tag": "t", "path": "/"}, "vm.remove-device": {"id": "nobody"}}

    def ask_all(self, api, state):
        for call, status in self.WRONG[state].items():
            method = "GET" if call in ("vm.info", "vm.counters") else "PUT"
            body = self.config() if call == "vm.create" else self.BODIES.get(call)
            answer = api.ask(method, call, body)
            self.assertEqual(answer[0], status, (state, call, answer))
        for call in NOT_SUPPORTED:
            self.refused(api.put(call, {"any": "thing"}), 400, call, "not supported")
        self.assertEqual(api.get("vmm.ping")[1]["pid"], self.process.pid)
        if state != "nothing":
            self.assertEqual(api.state(), state)

    def test_every_call_in_every_state(self):
        api = self.serve()
        self.ask_all(api, "nothing")
        self.ok(api.put("vm.create", self.config()))
        self.ask_all(api, "Created")
        self.ok(api.put("vm.boot"))
        self.said()
        self.ask_all(api, "Running")
        self.ok(api.put("vm.pause"))
        self.ask_all(api, "Paused")
        self.ok(api.put("vm.resume"))
        self.assertEqual(api.state(), "Running")
        self.ok(api.put("vm.shutdown"))
        self.ask_all(api, "Shutdown")
        self.ok(api.put("vm.boot"))
        self.assertEqual(api.state(), "Running")
        self.ok(api.put("vm.pause"))
        self.ok(api.put("vm.reboot"))  # a paused machine too
        self.assertEqual(api.state(), "Running")
        self.ok(api.put("vm.pause"))
        self.ok(api.put("vm.shutdown"))
        self.ok(api.put("vm.delete"))
        self.ask_all(api, "nothing")
        self.ok(api.put("vm.create", self.config()))
        self.ok(api.put("vm.boot"))
        self.ok(api.put("vm.delete"))  # a running one
        self.refused(api.get("vm.info"), 404)
        self.ok(api.put("vmm.shutdown"))
        self.ended()

    def test_the_document_has_the_calls_that_the_monitor_has(self):
        api = self.serve()
        for path, operations in DOCUMENT["paths"].items():
            for method in operations:
                # Not "there is no such path": known calls answer otherwise, in the right method only.
                if path != "/vmm.shutdown":
                    _, value = api.ask(method.upper(), path[1:])
                    self.assertNotIn("there is no /", str(value))
                api.connection.request("POST", PREFIX + path)
                answer = api.connection.getresponse()
                self.assertEqual((answer.status, b"is asked with " + method.upper().encode() in answer.read()), (400, True))
        for path in ("/", "/api/v1", "/api/v1/vm.nothing", "/api/v2/vmm.ping", "/api/v1/vmm.ping/"):
            api.connection.request("GET", path)
            answer = api.connection.getresponse()
            self.assertEqual((answer.status, json.loads(answer.read())), (404, [f"there is no {path}"]))

    def test_a_failed_boot_changes_nothing(self):
        api = self.serve()
        config = self.config()
        config["payload"]["kernel"] = "/nonexistent/kernel"
        self.ok(api.put("vm.create", config))
        self.refused(api.put("vm.boot"), 500, "the machine cannot boot", "/nonexistent/kernel")
        self.assertEqual(api.state(), "Created")
        self.ok(api.put("vm.delete"))
        self.ok(api.put("vm.create", self.config()))
        self.ok(api.put("vm.boot"))
        self.said()


class GuestTest(ApiTest):
    def test_a_guests_reset_boots_it_anew(self):
        for code in (RESET, TRIPLE_FAULT):
            with self.subTest(code=code):
                events = self.path("events", b"")
                api = self.serve("--event-monitor", f"path={events}")
                # The first life resets, each further one too: it is seen to come back.
                self.ok(api.put("vm.create", self.config(SAY_A + b"\xb9\x00\x00\x10\x00\xe2\xfe" + code)))
                self.ok(api.put("vm.boot"))
                self.assertTrue(smolvm.wait_until(lambda path=events: self.count(path, "rebooted") >= 3, smolvm.LIMIT))
                self.assertEqual(api.get("vmm.ping")[0], 200)
                self.assertEqual(api.state(), "Running")
                self.ok(api.put("vmm.shutdown"))
                self.ended()
                os.unlink(events)

    def count(self, path, event):
        with open(path, encoding="utf-8") as file:
            return sum(f'"event":"{event}"' in line for line in file)

    def test_after_reset_end(self):
        api = self.serve("--after-reset", "end")
        self.ok(api.put("vm.create", self.config(RESET)))
        self.ok(api.put("vm.boot"))
        self.ended()

    def test_a_guests_power_off_ends_the_monitor(self):
        api = self.serve()
        self.ok(api.put("vm.create", self.config(POWER_OFF)))
        self.ok(api.put("vm.boot"))
        self.ended()

    def test_no_shutdown_lets_the_monitor_stay(self):
        api = self.serve("--no-shutdown")
        self.ok(api.put("vm.create", self.config(SAY_A + POWER_OFF)))
        for _ in range(2):
            self.ok(api.put("vm.boot"))
            self.assertTrue(smolvm.wait_until(lambda: api.state() == "Shutdown", smolvm.LIMIT))
        self.ok(api.put("vmm.shutdown"))
        self.ended()

    def test_a_machine_from_the_command_line(self):
        console = self.path("serial")
        api = self.serve("--kernel", self.kernel(SAY_A), "--memory", "size=8M", "--serial", f"file={console}", "--cmdline", "one two",
                         "--vsock", f"cid=7,socket={self.sockets}/v", "--share", f"tag=t,path={self.folder},readonly=on")
        self.said()
        info = api.get("vm.info")[1]
        self.assertEqual(info["state"], "Running")
        self.assertEqual(info["config"]["payload"], {"kernel": self.path("kernel"), "cmdline": "one two"})
        self.assertEqual(info["config"]["memory"]["size"], 8 << 20)
        self.assertEqual(info["config"]["serial"], {"mode": "File", "file": console})
        self.assertEqual(info["config"]["vsock"], {"cid": 7, "socket": f"{self.sockets}/v"})
        self.assertEqual(info["config"]["shares"], [{"tag": "t", "path": self.folder, "read_only": True}])
        self.assertEqual(sorted(info["device_tree"]), ["__rng", "__shares", "_vsock0"])
        self.ok(api.put("vm.reboot"))
        self.assertEqual(api.state(), "Running")
        # The configuration survives: what was shown makes the same machine.
        self.ok(api.put("vm.delete"))
        self.ok(api.put("vm.create", info["config"]))
        self.assertEqual(api.get("vm.info")[1]["config"], info["config"])
        self.ok(api.put("vm.boot"))
        self.ok(api.put("vmm.shutdown"))
        self.ended()

    def test_linux_pauses_and_takes_an_nmi(self):
        disk = self.path("disk", os.urandom(4 << 20))
        api = self.serve()
        self.ok(api.put("vm.create", self.linux("rdinit=/bin/sleep -- 1000", disks=[{"path": disk, "readonly": True, "serial": "one"}])))
        self.ok(api.put("vm.boot"))
        self.wait_for_text("console", b"Run /bin/sleep")
        counters = self.ok(api.get("vm.counters"))
        self.assertGreater(counters["_disk0"]["read_bytes"], 0)
        self.assertGreater(counters["__console"]["tx_bytes"], 100)
        self.assertGreater(counters["__vcpus"]["exits_mmio"], 0)
        if smolvm.ACCEL == "soft":
            self.assertGreater(counters["__vcpus"]["instructions"], 1000000)
        self.ok(api.put("vm.pause"))
        before = self.ok(api.get("vm.counters"))
        self.assertEqual(self.ok(api.get("vm.counters")), before)
        self.ok(api.put("vm.resume"))
        self.ok(api.put("vm.nmi"))
        self.wait_for_text("console", b"NMI")
        self.refused(api.put("vm.power-button"), 400, "ACPI")
        self.ok(api.put("vmm.shutdown"))
        self.ended()


class DeviceTest(ApiTest):
    def test_devices_before_the_boot(self):
        api = self.serve()
        self.ok(api.put("vm.create", self.config()))
        for name in ("a", "b"):
            self.ok(api.put("vm.add-disk", {"path": self.path(name, b"\0" * 65536)}))
        self.ok(api.put("vm.add-disk", {"id": "data", "path": self.path("c", b"\0" * 65536)}))
        self.ok(api.put("vm.add-vsock", {"cid": 5, "socket": f"{self.sockets}/v"}))
        self.refused(api.put("vm.add-vsock", {"cid": 6, "socket": f"{self.sockets}/w"}), 409, "already")
        self.ok(api.put("vm.add-net", {"mode": "user", "id": "lan"}))
        self.ok(api.put("vm.add-share", {"tag": "t", "path": self.folder}))
        self.refused(api.put("vm.add-share", {"tag": "t", "path": self.folder}), 409, "already")
        self.ok(api.put("vm.remove-device", {"id": "_disk1"}))
        config = api.get("vm.info")[1]["config"]
        self.assertEqual([disk["path"] for disk in config["disks"]], [self.path("a"), self.path("c")])
        self.ok(api.put("vm.boot"))
        self.assertEqual(sorted(api.get("vm.info")[1]["device_tree"]), ["__rng", "__shares", "_disk0", "_vsock0", "data", "lan"])
        self.refused(api.put("vm.remove-device", {"id": "data"}), 409, "data", "hot plug")
        self.ok(api.put("vm.shutdown"))
        for device in ("data", "lan", "_vsock0", "t"):
            self.ok(api.put("vm.remove-device", {"id": device}))
            self.refused(api.put("vm.remove-device", {"id": device}), 404, device)
        self.ok(api.put("vm.boot"))
        self.assertEqual(sorted(api.get("vm.info")[1]["device_tree"]), ["__rng", "__shares", "_disk0"])

    def test_shares_while_it_runs(self):
        api = self.serve()
        self.ok(api.put("vm.create", self.config(shares=[])))
        self.ok(api.put("vm.boot"))
        self.ok(api.put("vm.add-share", {"tag": "one", "path": self.folder, "read_only": True}))
        self.refused(api.put("vm.add-share", {"tag": "two", "path": "/nonexistent/folder"}), 400, "/nonexistent/folder")
        self.assertEqual(api.get("vm.info")[1]["config"]["shares"], [{"tag": "one", "path": self.folder, "read_only": True}])
        self.ok(api.put("vm.remove-device", {"id": "one"}))
        self.refused(api.put("vm.remove-device", {"id": "one"}), 404)
        self.assertEqual(api.get("vm.info")[1]["config"]["shares"], [])

    def test_a_disk_grows(self):
        api = self.serve()
        disk = self.path("disk", b"\0" * (1 << 20))
        self.ok(api.put("vm.create", self.linux("rdinit=/bin/sleep -- 1000", disks=[{"path": disk, "id": "data"}, {"path": disk + "2"}])))
        self.path("disk2", b"\0" * (1 << 20))
        self.ok(api.put("vm.boot"))
        self.wait_for_text("console", b"Run /bin/sleep")
        for name, file, size in (("data", "disk", 2 << 20), ("_disk1", "disk2", 4 << 20)):
            self.ok(api.put("vm.resize-disk", {"id": name, "desired_size": size}))
            self.assertEqual(os.path.getsize(self.path(file)), size)
        self.wait_for_text("console", b"new size")
        self.refused(api.put("vm.resize-disk", {"id": "data", "desired_size": 1 << 20}), 400, "vm.resize-disk")
        self.refused(api.put("vm.resize-disk", {"id": "_disk0", "desired_size": 8 << 20}), 404, "_disk0")
        self.ok(api.put("vm.pause"))
        self.ok(api.put("vm.resize-disk", {"id": "data", "desired_size": 3 << 20}))
        self.ok(api.put("vm.resume"))
        self.assertEqual(os.path.getsize(disk), 3 << 20)

    def test_resizing_what_cannot_be(self):
        api = self.serve()
        self.ok(api.put("vm.create", self.config()))
        self.ok(api.put("vm.boot"))
        self.ok(api.put("vm.resize", {"desired_vcpus": 1, "desired_ram": 8 << 20}))
        self.refused(api.put("vm.resize", {"desired_vcpus": 2}), 400, "CPUs")
        self.refused(api.put("vm.resize", {"desired_ram": 16 << 20}), 400, "memory")
        self.refused(api.put("vm.resize", {"desired_balloon": 1 << 20}), 400, "balloon")

    def test_the_balloon_takes_memory(self):
        api = self.serve()
        self.ok(api.put("vm.create", self.linux("rdinit=/bin/sleep -- 1000", balloon={"size": 0, "free_page_reporting": True})))
        self.ok(api.put("vm.boot"))
        self.wait_for_text("console", b"Run /bin/sleep")
        self.assertEqual(api.get("vm.info")[1]["memory_actual_size"], 128 << 20)
        self.ok(api.put("vm.resize", {"desired_balloon": 16 << 20}))
        self.assertTrue(smolvm.wait_until(lambda: api.get("vm.info")[1]["memory_actual_size"] == 112 << 20, smolvm.LIMIT))
        self.assertEqual(api.get("vm.info")[1]["config"]["balloon"]["size"], 16 << 20)
        self.ok(api.put("vm.resize", {"desired_balloon": 0}))
        self.assertTrue(smolvm.wait_until(lambda: api.get("vm.info")[1]["memory_actual_size"] == 128 << 20, smolvm.LIMIT))

    def put_with_fds(self, call, body, fds):
        data = json.dumps(body).encode()
        head = f"PUT {PREFIX}/{call} HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(data)}\r\n\r\n".encode()
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
            raw.settimeout(smolvm.LIMIT)
            raw.connect(self.socket)
            raw.sendmsg([head + data], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))])
            text = b""
            while chunk := raw.recv(65536):
                text += chunk
        headers, _, body = text.partition(b"\r\n\r\n")
        status = int(headers.split()[1])
        return status, check_answer("PUT", call, status, "application/json", body)

    def test_a_tap_comes_as_a_descriptor(self):
        api = self.serve()
        self.ok(api.put("vm.create", self.config()))
        with open("/dev/null", "rb") as null:
            self.refused(self.put_with_fds("vm.add-net", {}, [null.fileno()] * 2), 400, "2 descriptors for 1 queue pairs")
            self.ok(self.put_with_fds("vm.add-net", {"id": "null"}, [null.fileno()]))
        self.refused(api.put("vm.boot"), 500, "null")  # it is no TAP
        self.ok(api.put("vm.remove-device", {"id": "null"}))
        name, taps = b"", []
        try:
            for _ in range(2):
                taps.append(os.open("/dev/net/tun", os.O_RDWR))
                told = fcntl.ioctl(taps[-1], 0x400454CA, struct.pack("16sH22x", name, 0x5102))  # TUNSETIFF: TAP, NO_PI, VNET_HDR, MULTI_QUEUE
                name = told[:16]
        except OSError as error:
            self.skipTest(f"no TAP can be made here: {error}")
        self.ok(self.put_with_fds("vm.add-net", {"id": "tap", "num_queues": 4}, taps))
        for tap in taps:
            os.close(tap)
        for _ in range(2):  # it is kept for the next life
            self.ok(api.put("vm.boot"))
            self.assertIn("tap", api.get("vm.info")[1]["device_tree"])
            self.ok(api.put("vm.shutdown"))


class InputTest(ApiTest):
    def test_generated_requests(self):
        """Bodies by the document's own schemas, right and wrong: always a documented answer, never a failure of the monitor."""
        api = self.serve("--no-shutdown")
        rng = seeded()
        for path, operations in DOCUMENT["paths"].items():
            call, operation = path[1:], operations.get("put", {})
            if "requestBody" not in operation or call in NOT_SUPPORTED:
                continue
            schema = operation["requestBody"]["content"]["application/json"]["schema"]
            for created in (False, True):
                for _ in range(60):
                    self.ok(api.put("vm.delete"))
                    if created and call != "vm.create":
                        self.ok(api.put("vm.create", self.config()))
                    body = generate(resolve(schema), rng)
                    status, value = api.put(call, body)
                    self.assertIn(status, (204, 400, 404, 409), (call, body, value))
                    # A right body is never refused for its shape.
                    self.assertNotIn("no such member", str(value), (call, body))
                    wrong = corrupt(body, rng)
                    status, value = api.put(call, wrong)
                    self.assertIn(status, (204, 400, 404, 409), (call, wrong, value))

    def test_malformed_bodies_name_the_place(self):
        api = self.serve()
        for body, words in ((b"", ["not JSON"]), (b"{", ["not JSON"]), (b"\xff\xfe", ["not JSON"]), (b"[" * 100000, ["nested"]),
                            (b'{"payload":{"kernel":"x"},"cpus":{"boot_vcpus":"2","max_vcpus":2}}', ["cpus.boot_vcpus", "number"]),
                            (b'{"payload":{"kernel":"x"},"disks":[{"path":"a"},{}]}', ["disks[1]", "path"]),
                            (b'{"payload":{"kernel":"x"},"memory":{"size":1}}', ["few"]),
                            (b'{"payload":{}}', ["kernel"]),
                            (b'{"payload":{"kernel":"x"},"cpus":{"boot_vcpus":33,"max_vcpus":33}}', ["33"]),
                            (b'{"payload":{"kernel":"x"},"disks":[{"path":"a\\",readonly=on"}]}', ["quotation"]),
                            (b'{"payload":{"kernel":"x"},"extra":1}', ["extra", "no such member"])):
            self.refused(api.put("vm.create", body), 400, *words)
        self.refused(api.get("vm.info"), 404)

    def raw(self, data, read=True):
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as raw:
            raw.connect(self.socket)
            raw.settimeout(smolvm.LIMIT)
            try:
                raw.sendall(data)
            except OSError:
                pass  # refused before all was sent
            text = b""
            while read and (chunk := raw.recv(65536)):
                text += chunk
            return text

    def test_huge_bodies_and_heads(self):
        api = self.serve()
        big = b'{"id":"' + b"x" * (1 << 20) + b'"}'
        answer = self.raw(f"PUT {PREFIX}/vm.remove-device HTTP/1.1\r\nContent-Length: {len(big)}\r\n\r\n".encode() + big)
        self.assertTrue(answer.startswith(b"HTTP/1.1 400 ") and b"longer than 1048576" in answer, answer)
        answer = self.raw(b"PUT / HTTP/1.1\r\nContent-Length: 99999999999999\r\n\r\n")
        self.assertTrue(answer.startswith(b"HTTP/1.1 400 "), answer)
        answer = self.raw(b"GET / HTTP/1.1\r\nX: " + b"y" * 100000)
        self.assertTrue(answer.startswith(b"HTTP/1.1 400 ") and b"longer than 16384" in answer, answer)
        answer = self.raw(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n")
        self.assertTrue(answer.startswith(b"HTTP/1.1 400 "), answer)
        self.assertEqual(api.get("vmm.ping")[0], 200)

    def test_slow_and_killed_clients(self):
        api = self.serve()
        slow = []
        for _ in range(70):  # more than the connections that there may be
            raw = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.addCleanup(raw.close)
            raw.connect(self.socket)
            slow.append(raw)
        for raw in slow[20:40]:
            raw.sendall(f"PUT {PREFIX}/vm.create HTTP/1.1\r\nContent-Length: 100\r\n\r\n{{".encode())
        api.close()
        self.assertEqual(self.connect().get("vmm.ping")[0], 200)
        for raw in slow:
            raw.close()
        for _ in range(50):
            self.raw(f"PUT {PREFIX}/vm.create HTTP/1.1\r\nContent-Length: 100\r\n\r\n{{".encode(), read=False)
            self.raw(f"GET {PREFIX}/vmm.ping HTTP/1.1\r\n\r\n".encode(), read=False)
        # A client that is killed while its request runs.
        client = subprocess.Popen(["curl", "-s", "--unix-socket", self.socket, "-X", "PUT", f"http://x{PREFIX}/vm.create", "-T", "-"],
                                  stdin=subprocess.PIPE, stdout=subprocess.DEVNULL)
        client.stdin.write(b'{"payload"')
        client.stdin.flush()
        client.kill()
        client.wait()
        client.stdin.close()
        # What nobody waits for any more is still executed, and more than so much does not wait.
        api, answers = self.connect(), []

        def has_its_turn():
            answers.append(api.get("vm.info"))
            return answers[-1][0] != 429
        self.assertTrue(smolvm.wait_until(has_its_turn))
        self.refused(answers[-1], 404)

    def test_several_clients_at_once(self):
        first = self.serve()
        self.ok(first.put("vm.create", self.config()))
        self.ok(first.put("vm.boot"))
        problems = []

        def work(number):
            api = Api(self.socket)
            try:
                for turn in range(40):
                    call = ["vm.info", "vmm.ping", "vm.counters"][turn % 3] if number % 2 else ["vm.pause", "vm.resume", "vm.nothing"][turn % 2]
                    status, _ = api.ask("GET" if number % 2 else "PUT", call)
                    if status not in (200, 204, 409):
                        problems.append((call, status))
            except Exception as error:  # whatever it is, the test fails with it
                problems.append(repr(error))
            finally:
                api.close()

        threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual(problems, [])
        self.assertIn(first.state(), ("Running", "Paused"))

    def test_a_client_that_is_not_ours(self):
        """curl: a whole life."""
        self.serve()

        def curl(method, call, body=None):
            done = subprocess.run(["curl", "-sS", "--max-time", "60", "--unix-socket", self.socket, "-X", method, "-w", "\n%{http_code}\n%{content_type}",
                                   *(["-H", "Content-Type: application/json", "--data-binary", json.dumps(body)] if body is not None else []),
                                   f"http://localhost{PREFIX}/{call}"], capture_output=True, check=True)
            text, status, content_type = done.stdout.rsplit(b"\n", 2)
            return int(status), check_answer(method, call, int(status), content_type.decode(), text)

        self.assertEqual(curl("GET", "vmm.ping")[1]["pid"], self.process.pid)
        self.ok(curl("PUT", "vm.create", self.config()))
        self.ok(curl("PUT", "vm.boot"))
        self.said()
        self.assertEqual(curl("GET", "vm.info")[1]["state"], "Running")
        for call in ("vm.pause", "vm.resume", "vm.reboot", "vm.shutdown", "vm.delete", "vmm.shutdown"):
            self.ok(curl("PUT", call))
        self.ended()


class MonitorTest(ApiTest):
    def test_the_socket(self):
        api = self.serve()
        self.assertEqual(os.stat(self.socket).st_mode & 0o777, 0o600)
        second = self.start_monitor()
        self.assertEqual(second.wait(smolvm.LIMIT), 1)
        self.assertIn(b"in use by another process", second.stderr.read())
        self.assertEqual(api.get("vmm.ping")[0], 200)
        # A monitor that was killed leaves its socket; the next one replaces it.
        self.process.kill()
        self.process.wait()
        self.assertTrue(os.path.exists(self.socket))
        api.close()
        self.serve()
        self.process.terminate()
        self.ended()
        self.process = self.start_monitor("--api-socket", self.socket, api=False)  # a bare path
        self.assertTrue(smolvm.wait_until(self.answers))
        self.process.send_signal(signal.SIGINT)
        self.ended()

    def test_bad_command_lines(self):
        for arguments, status, words in ((["--api-socket", "path="], 2, b"empty"),
                                         (["--api-socket", "/nonexistent/folder/s"], 1, b"/nonexistent/folder/s"),
                                         (["--api-socket", "/" + "x" * 120], 1, b"107"),
                                         (["--api-socket", self.folder], 1, b"not a socket"),
                                         ([], 2, b"--kernel"),
                                         (["--no-shutdown", "--kernel", "x"], 2, b"--api-socket"),
                                         (["--after-reset", "dance", "--kernel", "x"], 2, b"dance"),
                                         (["--kernel", "x", "--event-monitor", "nowhere"], 1, b"nowhere"),
                                         (["--kernel", "x", "--event-monitor", "fd=99"], 1, b"99"),
                                         (["--kernel", "x", "--event-monitor", "path=/nonexistent/e"], 1, b"/nonexistent/e")):
            process = self.start_monitor(*arguments, api=False)
            out, err = process.communicate(timeout=smolvm.LIMIT)
            self.assertEqual((process.returncode, out), (status, b""), (arguments, err))
            self.assertIn(words, err)

    def test_it_outlives_whoever_started_it(self):
        pidfile = self.path("pid")
        script = f"'{MONITOR}' --api-socket path={self.socket} --accel {smolvm.ACCEL} </dev/null >/dev/null 2>&1 & echo $! >'{pidfile}'"
        subprocess.run(["setsid", "sh", "-c", script], env=self.env, check=True)

        self.assertTrue(smolvm.wait_until(self.someone_answers))
        with open(pidfile, encoding="utf-8") as file:
            pid = int(file.read())
        api = self.connect()
        self.assertEqual(api.get("vmm.ping")[1]["pid"], pid)
        self.ok(api.put("vm.create", self.config()))
        self.ok(api.put("vm.boot"))
        self.said()
        os.kill(pid, signal.SIGHUP)
        self.assertEqual(api.state(), "Running")
        os.kill(pid, signal.SIGTERM)
        self.assertTrue(smolvm.wait_until(lambda: not os.path.exists(f"/proc/{pid}")))
        self.assertFalse(os.path.exists(self.socket))

    def stick(self):
        """A serial port into a pipe that nobody reads: the CPU cannot be paused, and SIGTERM must still end all."""
        say = b"\x66\xba\xf8\x03\xee\xeb\xfd"  # one byte, for ever
        api = self.serve("--kernel", self.kernel(say), "--memory", "size=8M", "--serial", "tty", "--console", "off")

        def stuck():
            size = struct.unpack("i", fcntl.ioctl(self.process.stdout.fileno(), 0x541B, b"\0" * 4))[0]  # FIONREAD
            return size > 61440  # the last page is begun: the kernel calls that full
        self.assertTrue(smolvm.wait_until(stuck, smolvm.LIMIT))
        waiting = threading.Thread(target=self.pause_and_ignore)
        waiting.start()
        self.assertTrue(smolvm.wait_until(lambda: not self.answers_soon(api), smolvm.LIMIT))
        return waiting

    def test_it_ends_though_the_guest_waits_for_a_reader(self):
        waiting = self.stick()
        self.process.terminate()
        self.ended()
        waiting.join()

    def test_it_ends_whichever_thread_takes_the_signal(self):
        """A stopped process: the kernel gives the signal to the thread that goes on first."""
        waiting = self.stick()
        self.process.send_signal(signal.SIGSTOP)
        self.process.terminate()
        self.process.send_signal(signal.SIGCONT)
        self.ended()
        waiting.join()

    def pause_and_ignore(self):
        api = Api(self.socket)
        try:
            api.put("vm.pause")  # 204, 409, or the connection's end: as it comes
        except (OSError, http.client.HTTPException):
            pass
        finally:
            api.close()

    def answers_soon(self, api):
        """False: the monitor is busy with the pause."""
        api.connection.request("GET", f"{PREFIX}/vmm.ping")
        api.connection.sock.settimeout(0.5)
        try:
            api.connection.getresponse().read()
            return True
        except TimeoutError:
            return False

    def test_events(self):
        read_end, write_end = os.pipe()
        self.addCleanup(os.close, read_end)
        api = self.serve("--event-monitor", f"fd={write_end}", pass_fds=[write_end])
        os.close(write_end)
        self.ok(api.put("vm.create", self.config(SAY_A)))
        for call in ("vm.boot", "vm.pause", "vm.resume", "vm.reboot", "vm.shutdown", "vm.delete", "vmm.shutdown"):
            self.ok(api.put(call))
        self.ended()
        text = b""
        while chunk := os.read(read_end, 65536):
            text += chunk
        events = [json.loads(line) for line in text.splitlines()]
        self.assertEqual([f'{event["source"]} {event["event"]}' for event in events],
                         ["vmm starting", "vm created", "vm booting", "vmm sandboxed", "vm booted", "vm pausing", "vm paused", "vm resuming", "vm resumed",
                          "vm rebooting", "vm shutdown", "vm booting", "vm booted", "vm rebooted", "vm shutdown", "vm deleted", "vmm shutdown"])
        times = [event["timestamp"]["secs"] * 10**9 + event["timestamp"]["nanos"] for event in events]
        self.assertEqual(times, sorted(times))
        self.assertTrue(all(set(event) == {"timestamp", "source", "event", "properties"} for event in events))

    def test_the_guests_end_is_told(self):
        for code, reason, status in ((POWER_OFF, "power-off", 0), (RESET, "reset", 0), (TRIPLE_FAULT, "triple-fault", 3)):
            events = self.path("events", b"")
            process = self.start_monitor("--kernel", self.kernel(code + HALT), "--memory", "size=8M", "--serial", "null", "--event-monitor",
                                         f"path={events}", api=False)
            self.assertEqual(process.wait(smolvm.LIMIT), status)
            with open(events, encoding="utf-8") as file:
                ended = [json.loads(line) for line in file if '"ended"' in line]
            self.assertEqual([event["properties"] for event in ended], [{"reason": reason, "status": str(status), "text": ""}])


if __name__ == "__main__":
    if not smolvm.SMOLVM:
        raise SystemExit("SMOLVM must name the program beside the one to test")
    unittest.main(verbosity=2)
