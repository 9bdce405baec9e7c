"""Container images made by hand: layers as tar archives, configurations, and the layouts that they travel in.

An Image is a list of layers (each a function that fills a tarfile) and a configuration. `oci_directory`, `oci_archive` and
`docker_archive` write it. The bytes depend on the arguments only.
"""
import gzip
import hashlib
import io
import json
import os
import tarfile


def layer(entries):
    """A tar archive: {path: text or bytes | ("link", target) | ("dir", mode) | ("file", bytes, mode[, uid, gid])}."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for path, what in entries.items():
            info = tarfile.TarInfo(path)
            data = b""
            if isinstance(what, str):
                what = what.encode()
            if isinstance(what, bytes):
                what = ("file", what, 0o644)
            if what[0] == "link":
                info.type, info.linkname, info.mode = tarfile.SYMTYPE, what[1], 0o777
            elif what[0] == "hard":
                info.type, info.linkname = tarfile.LNKTYPE, what[1]
            elif what[0] == "dir":
                info.type, info.mode = tarfile.DIRTYPE, what[1]
            else:
                data, info.mode = what[1], what[2]
                if len(what) > 3:
                    info.uid, info.gid = what[3], what[4]
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return out.getvalue()


def digest(data):
    return "sha256:" + hashlib.sha256(data).hexdigest()


class Image:
    def __init__(self, layers, config=None, architecture="amd64", compress=True):
        self.blobs = {}
        self.tars = layers
        self.packed = [gzip.compress(tar, mtime=0) if compress else tar for tar in layers]
        kind = "application/vnd.oci.image.layer.v1.tar" + ("+gzip" if compress else "")
        document = {"architecture": architecture, "os": "linux", "config": config or {},
                    "rootfs": {"type": "layers", "diff_ids": [digest(tar) for tar in layers]}}
        self.config = json.dumps(document).encode()
        self.manifest = json.dumps({
            "schemaVersion": 2, "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": self.descriptor("application/vnd.oci.image.config.v1+json", self.config),
            "layers": [self.descriptor(kind, data) for data in self.packed]}).encode()
        self.index = json.dumps({
            "schemaVersion": 2, "manifests": [dict(
                self.descriptor("application/vnd.oci.image.manifest.v1+json", self.manifest),
                annotations={"org.opencontainers.image.ref.name": "latest"})]}).encode()

    def descriptor(self, kind, data):
        self.blobs[digest(data)] = data
        return {"mediaType": kind, "digest": digest(data), "size": len(data)}

    def files(self):
        out = {"oci-layout": b'{"imageLayoutVersion":"1.0.0"}', "index.json": self.index}
        for name, data in self.blobs.items():
            out["blobs/sha256/" + name[7:]] = data
        return out

    def oci_directory(self, path):
        for name, data in self.files().items():
            os.makedirs(os.path.dirname(os.path.join(path, name)), exist_ok=True)
            with open(os.path.join(path, name), "wb") as file:
                file.write(data)
        return path

    def oci_archive(self, path):
        return write_tar(path, self.files())

    def docker_archive(self, path, tag):
        files = {"config.json": self.config}
        names = []
        for number, tar in enumerate(self.tars):
            names.append(f"{number}/layer.tar")
            files[names[-1]] = tar
        files["manifest.json"] = json.dumps([{"Config": "config.json", "RepoTags": [tag], "Layers": names}]).encode()
        return write_tar(path, files)


def write_tar(path, files):
    with tarfile.open(path, "w") as tar:
        for name, data in files.items():
            info = tarfile.TarInfo(name)
            info.size = len(data)
            tar.addfile(info, io.BytesIO(data))
    return path


def busybox(applets=("sh", "ls", "cat", "echo", "true", "id", "pwd", "env", "stat", "httpd", "wget", "touch", "sleep", "date", "ps",
                     "mkdir", "rm", "chown", "sort", "sha256sum", "test", "nproc", "kill", "grep", "head", "mount", "df", "hostname")):
    """What an image with a shell begins with."""
    with open("/bin/busybox", "rb") as file:
        program = file.read()
    entries = {"bin/": ("dir", 0o755), "bin/busybox": ("file", program, 0o755), "tmp/": ("dir", 0o1777), "etc/": ("dir", 0o755),
               "etc/passwd": "root:x:0:0:root:/root:/bin/sh\nweb:x:33:33:web:/srv:/bin/sh\n",
               "etc/group": "root:x:0:\nweb:x:33:\n"}
    for applet in applets:
        entries["bin/" + applet] = ("link", "busybox")
    return layer(entries)
