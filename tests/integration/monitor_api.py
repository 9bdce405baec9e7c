"""A client of the monitor's API that holds every answer to the OpenAPI document, and monitors to ask.

Written apart from src/client and src/http: Python's http.client over a Unix socket.
"""
import http.client
import json
import os
import random
import socket
import struct
import subprocess
import tempfile

import jsonschema
import yaml

import smolvm

MONITOR = os.path.join(os.path.dirname(smolvm.SMOLVM), "smol-vmm")
IMAGE = os.environ.get("SMOL_IMAGE", "")
SHARE = os.environ.get("SMOLVM_SHARE", "")
PREFIX = "/api/v1"

with open(os.path.join(smolvm.SOURCE, "docs/api/smol-vmm.yaml"), encoding="utf-8") as document_file:
    DOCUMENT = yaml.safe_load(document_file)


def resolve(node):
    """The document's part that a reference names."""
    while "$ref" in node:
        target = DOCUMENT
        for step in node["$ref"].lstrip("#/").split("/"):
            target = target[step]
        node = target
    return node


def schema_of(node):
    """A schema with what its references need."""
    return {**node, "components": DOCUMENT["components"]}


def check_answer(method, call, status, content_type, body):
    """Fails unless the document has this answer."""
    operation = DOCUMENT["paths"]["/" + call][method.lower()]
    responses = operation["responses"]
    assert str(status) in responses, f"{call} answered {status}, which is not documented: {body!r}"
    response = resolve(responses[str(status)])
    if "content" not in response:
        assert body == b"", f"{call}: {status} has a body: {body!r}"
        return None
    assert content_type == "application/json", f"{call}: content type {content_type}"
    value = json.loads(body)
    jsonschema.validate(value, schema_of(response["content"]["application/json"]["schema"]))
    return value


class UnixConnection(http.client.HTTPConnection):
    def __init__(self, path, timeout=smolvm.LIMIT):
        super().__init__("localhost", timeout=timeout)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self.sock.connect(self.path)  # blocking: with a time limit a full backlog would be an error
        except OSError:
            self.sock.close()
            raise
        self.sock.settimeout(self.timeout)


class Api:
    def __init__(self, path):
        self.path = path
        self.connection = UnixConnection(path)

    def ask(self, method, call, body=None):
        """Status and value of a documented call; the answer is checked."""
        data = body if body is None or isinstance(body, (bytes, str)) else json.dumps(body)
        self.connection.request(method, f"{PREFIX}/{call}", body=data, headers={"Content-Type": "application/json"} if data else {})
        answer = self.connection.getresponse()
        return answer.status, check_answer(method, call, answer.status, answer.getheader("Content-Type"), answer.read())

    def get(self, call):
        return self.ask("GET", call)

    def put(self, call, body=None):
        return self.ask("PUT", call, body)

    def state(self):
        return self.get("vm.info")[1]["state"]

    def close(self):
        self.connection.close()


# --- Guests of a few bytes: Multiboot 1, 32-bit protected mode, loaded at 1 MiB ---

HALT = b"\xf4\xeb\xfd"                            # hlt; jmp
SAY_A = b"\xb0\x41\x66\xba\xf8\x03\xee"           # 'A' to the serial port
RESET = b"\xb0\xfe\xe6\x64"                       # the keyboard controller's reset
POWER_OFF = b"\x66\xba\x04\x06\x66\xb8\x00\x20\x66\xef"  # ACPI PM1 control: soft off
TRIPLE_FAULT = b"\x6a\x00\x6a\x00\x0f\x01\x1c\x24\xcc"   # an empty IDT, then a breakpoint


def tiny_kernel(code):
    flags = 1 << 16
    address = 0x100000
    header = struct.pack("<8I", 0x1BADB002, flags, (-0x1BADB002 - flags) & 0xFFFFFFFF, address, address, 0, 0, address + 32)
    return header + code + HALT


class ApiTest(smolvm.MachineTest):
    """Tests with monitors. Each is ended, and leaves neither process nor socket."""

    def setUp(self):
        super().setUp()
        # Socket paths are short.
        self.sockets = tempfile.mkdtemp(prefix="api-", dir="/tmp")
        self.addCleanup(lambda: os.rmdir(self.sockets))
        self.socket = os.path.join(self.sockets, "s")

    def start_monitor(self, *arguments, api=True, **popen):
        command = [MONITOR, *(["--api-socket", f"path={self.socket}"] if api else []), "--accel", smolvm.ACCEL, *arguments]
        streams = {"stdin": subprocess.DEVNULL, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE, **popen}
        process = subprocess.Popen(command, env=self.env, **streams)
        self.addCleanup(self.end_monitor, process)
        return process

    def end_monitor(self, process):
        """Orderly, so that it takes its socket with it."""
        process.terminate()
        try:
            process.wait(smolvm.LIMIT)
        finally:
            self.end_process(process)

    def serve(self, *arguments, **popen):
        """A monitor whose API answers."""
        self.process = self.start_monitor(*arguments, **popen)
        self.assertTrue(smolvm.wait_until(self.answers), "the API does not answer")
        return self.connect()

    def answers(self):
        if self.process.poll() is not None:
            self.fail(f"the monitor ended with {self.process.returncode}: {self.process.stderr.read()!r}")
        return self.someone_answers()

    def someone_answers(self):
        api = Api(self.socket)
        try:
            return api.get("vmm.ping")[0] == 200
        except OSError:
            return False
        finally:
            api.close()

    def connect(self):
        api = Api(self.socket)
        self.addCleanup(api.close)
        return api

    def kernel(self, code, name="kernel"):
        return self.path(name, tiny_kernel(code))

    def config(self, code=SAY_A, **more):
        """A machine of a few bytes, whose serial port says A."""
        return {"payload": {"kernel": self.kernel(code)}, "memory": {"size": 8 << 20}, "console": {"mode": "Off"},
                "serial": {"mode": "File", "file": self.path("serial")}, **more}

    def linux(self, init, **more):
        return {"payload": {"kernel": os.path.join(SHARE, "vmlinux-micro"), "initramfs": IMAGE, "cmdline": f"console=hvc0 {init}"},
                "memory": {"size": 128 << 20}, "console": {"mode": "File", "file": self.path("console")},
                "platform": {"tables": "mp"}, **more}

    def wait_for_text(self, name, text):
        def there():
            try:
                with open(self.path(name), "rb") as file:
                    return text in file.read()
            except FileNotFoundError:
                return False
        self.assertTrue(smolvm.wait_until(there, smolvm.LIMIT), f"{name} does not say {text!r}")

    def said(self):
        self.wait_for_text("serial", b"A")

    def ok(self, answer):
        self.assertIn(answer[0], (200, 204), answer)
        return answer[1]

    def refused(self, answer, status, *words):
        self.assertEqual(answer[0], status, answer)
        for word in words:
            self.assertIn(word, ": ".join(answer[1]))

    def ended(self, status=0):
        self.assertEqual(self.process.wait(smolvm.LIMIT), status, self.process.stderr.read())
        self.assertFalse(os.path.exists(self.socket), "the socket is left")


# --- Values by the document's schemas ---

def generate(schema, rng, depth=0):
    """A value that the schema allows (mostly small numbers and short texts)."""
    schema = resolve(schema)
    if "enum" in schema:
        return rng.choice(schema["enum"])
    kind = schema.get("type")
    if kind == "boolean":
        return rng.random() < 0.5
    if kind == "integer":
        low = schema.get("minimum", 0)
        return rng.choice([low, low + 1, schema.get("maximum", 2**63), rng.randrange(low, min(schema.get("maximum", 2**40), 2**40) + 1)])
    if kind == "string":
        return rng.choice(["", "x", "/nonexistent/file", "ä", "a,b=c", "[", '"', "x" * 300])
    if kind == "array":
        return [generate(schema["items"], rng, depth + 1) for _ in range(rng.randrange(3))]
    if kind == "object":
        required = schema.get("required", [])
        return {name: generate(child, rng, depth + 1) for name, child in schema.get("properties", {}).items()
                if name in required or rng.random() < 0.4}
    return None


def corrupt(value, rng):
    """The value with one thing wrong somewhere."""
    if isinstance(value, dict) and value and rng.random() < 0.7:
        key = rng.choice(sorted(value))
        return {**value, key: corrupt(value[key], rng)}
    if isinstance(value, list) and value and rng.random() < 0.7:
        return [corrupt(value[0], rng), *value[1:]]
    wrong = [None, True, -1, 1.5, 2**64, "", [], {}, "\0", [[]], {"there is no such member": 1}]
    return rng.choice([one for one in wrong if one != value])


def seeded():
    return random.Random(20241)
