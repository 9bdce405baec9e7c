"""Registries for tests, on loopback: Debian's docker-registry plain, with TLS, with user names, with a token server; a
proxy before it that fails as it is told to; images made by hand."""
import base64
import gzip
import hashlib
import http.client
import http.server
import io
import json
import os
import re
import socket
import ssl
import subprocess
import tarfile
import threading
import time
import urllib.parse

USER, PASSWORD = "anna", "s3cret:with colon"


def digest_of(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


def run(*words, **options):
    return subprocess.run(words, check=True, capture_output=True, **options).stdout


class Certificates:
    """A certificate authority of our own, and a server's certificate for localhost, or for other names; days: -1 for one that
    has expired."""

    def __init__(self, folder, names="DNS:localhost,IP:127.0.0.1", days=30):
        os.makedirs(folder, exist_ok=True)
        self.ca, self.key, self.cert = (os.path.join(folder, name) for name in ("ca.pem", "server.key", "server.pem"))
        ca_key, request, extra = (os.path.join(folder, name) for name in ("ca.key", "server.csr", "server.ext"))
        run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", ca_key, "-out", self.ca, "-days", "30",
            "-subj", "/CN=test authority")
        run("openssl", "req", "-newkey", "rsa:2048", "-nodes", "-keyout", self.key, "-out", request, "-subj", "/CN=localhost")
        with open(extra, "w", encoding="utf-8") as file:
            file.write(f"subjectAltName={names}\n")
        run("openssl", "x509", "-req", "-in", request, "-CA", self.ca, "-CAkey", ca_key, "-CAcreateserial", "-out", self.cert,
            "-days", str(days), "-extfile", extra)


class Registry:
    """docker-registry as a process. auth: None, "htpasswd", or a TokenServer."""

    def __init__(self, folder, certificates=None, auth=None):
        os.makedirs(folder, exist_ok=True)
        self.log = os.path.join(folder, "registry.log")
        config = {"version": 0.1, "log": {"level": "info"},
                  "storage": {"filesystem": {"rootdirectory": os.path.join(folder, "data")}},
                  "http": {"addr": "127.0.0.1:0"}}
        if certificates:
            config["http"]["tls"] = {"certificate": certificates.cert, "key": certificates.key}
        if auth == "htpasswd":
            path = os.path.join(folder, "htpasswd")
            with open(path, "wb") as file:
                file.write(run("htpasswd", "-Bbn", "-C", "4", USER, PASSWORD))
            config["auth"] = {"htpasswd": {"realm": "test", "path": path}}
        elif auth:
            config["auth"] = {"token": {"realm": auth.realm, "service": auth.service, "issuer": auth.issuer,
                                        "rootcertbundle": auth.certificates.cert}}
        path = os.path.join(folder, "config.yml")
        with open(path, "w", encoding="utf-8") as file:
            json.dump(config, file)  # JSON is YAML
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(["docker-registry", "serve", path], stdout=log, stderr=log, stdin=subprocess.DEVNULL)
        self.port = self.wait_for_port()
        self.host = f"localhost:{self.port}"

    def wait_for_port(self):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            with open(self.log, encoding="utf-8", errors="replace") as file:
                text = file.read()
            found = re.search(r"listening on 127\.0\.0\.1:(\d+)\D", text)
            if found:
                return int(found.group(1))
            if self.process.poll() is not None:
                raise RuntimeError("docker-registry ended: " + text)
            time.sleep(0.02)
        raise RuntimeError("docker-registry does not listen: " + text)

    def stop(self):
        self.process.kill()
        self.process.wait()


class TokenServer:
    """Gives tokens as Docker's does: signed, for a scope, to those who know the password (or to all for pulls)."""

    def __init__(self, certificates, anonymous=False):
        self.certificates, self.anonymous = certificates, anonymous
        self.service, self.issuer = "test registry", "test issuer"
        self.requests = []
        with open(certificates.cert, encoding="ascii") as file:
            self.chain = [re.sub(r"-----.*?-----|\s", "", file.read())]
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def log_message(self, *_):
                pass

            def do_GET(self):
                query = urllib.parse.parse_qs(urllib.parse.urlparse(self.path).query)
                wanted = "Basic " + base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()
                given = self.headers.get("Authorization")
                outer.requests.append((query, given))
                if given not in ([None, wanted] if outer.anonymous else [wanted]):
                    return self.answer(401, {"errors": [{"code": "UNAUTHORIZED", "message": "who are you?"}]})
                return self.answer(200, {"token": outer.token(query.get("scope", []))})

            def answer(self, status, document):
                body = json.dumps(document).encode()
                self.send_response(status)
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                self.wfile.write(body)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.realm = f"http://127.0.0.1:{self.server.server_address[1]}/token"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def token(self, scopes):
        def part(document):
            return base64.urlsafe_b64encode(json.dumps(document).encode()).rstrip(b"=")
        access = []
        for scope in scopes:
            kind, name, actions = scope.split(":")
            access.append({"type": kind, "name": name, "actions": actions.split(",")})
        now = int(time.time())
        text = part({"typ": "JWT", "alg": "RS256", "x5c": self.chain}) + b"." + part(
            {"iss": self.issuer, "sub": USER, "aud": self.service, "exp": now + 600, "nbf": now - 60, "iat": now - 60,
             "jti": str(now), "access": access})
        signature = subprocess.run(["openssl", "dgst", "-sha256", "-sign", self.certificates.key], input=text, check=True,
                                   capture_output=True).stdout
        return (text + b"." + base64.urlsafe_b64encode(signature).rstrip(b"=")).decode()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class FaultProxy:
    """Stands before a plain registry. faults: functions (method, path, count of that path so far) -> None to pass the request
    on, or {"status", "headers"} to answer, or {"cut": bytes} to end the connection after that much of the body, or
    {"flip": offset} for one wrong byte, or {"hold": event} to send half of the body and wait."""

    def __init__(self, port, fault=None):
        self.fault = fault or (lambda *_: None)
        self.seen = []  # (method, path, Range)
        outer, lock, counts = self, threading.Lock(), {}

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def serve(self):
                with lock:
                    count = counts[self.path] = counts.get(self.path, -1) + 1
                    outer.seen.append((self.command, self.path, self.headers.get("Range")))
                fault = outer.fault(self.command, self.path, count) or {}
                if "status" in fault:
                    return self.answer(fault["status"], fault.get("headers", {}), b'{"errors":[{"code":"TEST","message":"as told"}]}')
                upstream = http.client.HTTPConnection("127.0.0.1", port)
                headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
                body = self.rfile.read(int(self.headers.get("Content-Length", 0))) or None
                upstream.request(self.command, self.path, body, headers)
                response = upstream.getresponse()
                data = response.read()
                upstream.close()
                if "flip" in fault:
                    data = data[:fault["flip"]] + bytes([data[fault["flip"]] ^ 1]) + data[fault["flip"] + 1:]
                sent = {name: value for name, value in response.getheaders()
                        if name.lower() not in ("transfer-encoding", "connection")}
                return self.answer(response.status, sent, data, fault)

            def answer(self, status, headers, data, fault=None):
                self.send_response(status)
                headers = {name: value for name, value in headers.items() if name.lower() != "content-length" or self.command == "HEAD"}
                for name, value in headers.items():
                    self.send_header(name, value)
                if self.command != "HEAD":
                    self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                if self.command == "HEAD":
                    return
                fault = fault or {}
                if "cut" in fault:
                    self.wfile.write(data[:fault["cut"]])
                    self.close_connection = True
                    return
                if "hold" in fault:
                    self.wfile.write(data[:len(data) // 2])
                    self.wfile.flush()
                    fault["held"].set()
                    fault["hold"].wait(120)
                    self.close_connection = True
                    return
                self.wfile.write(data)

            do_GET = do_HEAD = do_PUT = do_POST = do_PATCH = serve

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        self.host = f"localhost:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


class CountingProxy:
    """Passes bytes on to a port as they are and counts those that come from clients (`sent`) and go to them (`received`)."""

    def __init__(self, port):
        self.port, self.sent, self.received, self.lock = port, 0, 0, threading.Lock()
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.host = f"localhost:{self.listener.getsockname()[1]}"
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            upstream = socket.create_connection(("127.0.0.1", self.port))
            for source, target, name in ((client, upstream, "sent"), (upstream, client, "received")):
                threading.Thread(target=self.carry, args=(source, target, name), daemon=True).start()

    def carry(self, source, target, name):
        try:
            while data := source.recv(1 << 18):
                with self.lock:
                    setattr(self, name, getattr(self, name) + len(data))
                target.sendall(data)
        except OSError:
            pass
        try:
            target.shutdown(socket.SHUT_WR)
        except OSError:
            pass

    def stop(self):
        self.listener.close()


class ForwardProxy:
    """An HTTP proxy: CONNECT (refused without tunnels), and requests for whole addresses. Every name leads to 127.0.0.1.
    certificates: spoken to by TLS."""

    def __init__(self, certificates=None, tunnels=False):
        self.seen = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def log_message(self, *_):
                pass

            def do_CONNECT(self):
                outer.seen.append("CONNECT " + self.path)
                if tunnels:
                    return self.carry()
                self.send_response(403)
                self.send_header("Content-Length", "0")
                self.end_headers()

            def carry(self):
                self.send_response(200)
                self.end_headers()
                self.close_connection = True
                with socket.create_connection(("127.0.0.1", int(self.path.rsplit(":", 1)[1]))) as upstream:
                    def back():
                        try:
                            while data := upstream.recv(65536):
                                self.connection.sendall(data)
                        except OSError:
                            pass
                    thread = threading.Thread(target=back, daemon=True)
                    thread.start()
                    try:
                        while data := self.rfile.read1(65536):
                            upstream.sendall(data)
                        upstream.shutdown(socket.SHUT_RDWR)
                    except OSError:
                        pass
                    thread.join()

            def do_GET(self):
                outer.seen.append("GET " + self.path)
                url = urllib.parse.urlparse(self.path)
                upstream = http.client.HTTPConnection("127.0.0.1", url.port)
                upstream.request("GET", url.path, None, {name: value for name, value in self.headers.items()})
                response = upstream.getresponse()
                data = response.read()
                upstream.close()
                self.send_response(response.status)
                for name, value in response.getheaders():
                    if name.lower() not in ("content-length", "transfer-encoding", "connection"):
                        self.send_header(name, value)
                self.send_header("Content-Length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = True
        if certificates:
            context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
            context.load_cert_chain(certificates.cert, certificates.key)
            self.server.socket = context.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.address = f"127.0.0.1:{self.server.server_address[1]}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def stop(self):
        self.server.shutdown()
        self.server.server_close()


def layer_of(files):
    """(tar, gzip of it) with these files: name -> bytes."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size, info.mode, info.mtime = len(data), 0o755, 1_700_000_000
            archive.addfile(info, io.BytesIO(data))
    return out.getvalue(), gzip.compress(out.getvalue(), 1, mtime=0)


class OciImage:
    """An image by hand: layers are dictionaries of files."""

    def __init__(self, layers, architecture="amd64", config=None):
        made = [layer_of(files) for files in layers]
        self.blobs = {}
        self.config = self.add({"os": "linux", "architecture": architecture, "config": config or {},
                                "rootfs": {"type": "layers", "diff_ids": [digest_of(tar) for tar, _ in made]}})
        self.layers = [self.add_bytes(packed) for _, packed in made]
        self.manifest = json.dumps({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {"mediaType": "application/vnd.oci.image.config.v1+json", **self.entry(self.config)},
            "layers": [{"mediaType": "application/vnd.oci.image.layer.v1.tar+gzip", **self.entry(layer)} for layer in self.layers],
        }).encode()
        self.digest = digest_of(self.manifest)
        self.platform = {"os": "linux", "architecture": architecture}

    def add_bytes(self, data):
        self.blobs[digest_of(data)] = data
        return digest_of(data)

    def add(self, document):
        return self.add_bytes(json.dumps(document).encode())

    def entry(self, digest):
        return {"digest": digest, "size": len(self.blobs[digest])}

    def write_layout(self, folder):
        os.makedirs(os.path.join(folder, "blobs", "sha256"))
        for digest, data in {**self.blobs, self.digest: self.manifest}.items():
            with open(os.path.join(folder, "blobs", "sha256", digest[7:]), "wb") as file:
                file.write(data)
        index = {"schemaVersion": 2, "manifests": [{"mediaType": "application/vnd.oci.image.manifest.v1+json",
                                                    "digest": self.digest, "size": len(self.manifest)}]}
        for name, text in (("oci-layout", '{"imageLayoutVersion":"1.0.0"}'), ("index.json", json.dumps(index))):
            with open(os.path.join(folder, name), "w", encoding="utf-8") as file:
                file.write(text)

    def push(self, port, repository, tag):
        for data in self.blobs.values():
            push_blob(port, repository, data)
        put_manifest(port, repository, self.digest, self.manifest, "application/vnd.oci.image.manifest.v1+json")
        put_manifest(port, repository, tag, self.manifest, "application/vnd.oci.image.manifest.v1+json")


def push_index(port, repository, tag, images):
    index = json.dumps({"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": [
        {"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": image.digest, "size": len(image.manifest),
         "platform": image.platform} for image in images]}).encode()
    for image in images:
        image.push(port, repository, image.platform["architecture"])
    put_manifest(port, repository, tag, index, "application/vnd.oci.image.index.v1+json")
    return digest_of(index)


def send(port, method, path, body, headers):
    connection = http.client.HTTPConnection("127.0.0.1", port)
    connection.request(method, path, body, headers)
    response = connection.getresponse()
    text = response.read()
    connection.close()
    if response.status // 100 != 2:
        raise RuntimeError(f"{method} {path}: {response.status} {text!r}")
    return response


def push_blob(port, repository, data):
    response = send(port, "POST", f"/v2/{repository}/blobs/uploads/", b"", {"Content-Length": "0"})
    url = urllib.parse.urlparse(response.headers["Location"])
    send(port, "PUT", f"{url.path}?{url.query}&digest={digest_of(data)}", data, {"Content-Type": "application/octet-stream"})


def put_manifest(port, repository, selector, data, media_type):
    send(port, "PUT", f"/v2/{repository}/manifests/{selector}", data, {"Content-Type": media_type})
