"""A layered image and its next version, of which one layer has changed, as files in OCI layouts on disk: what a second push is measured with.

The files of a layer are of every size from a few bytes to megabytes and cannot be compressed. In the changed layer each file that stays has another size and other bytes, and names come and go, so everything behind it in a root moves.
"""
import hashlib
import io
import json
import os
import random
import tarfile


def sizes(chance, total):
    """Nearly all files are small, most bytes are in large ones; about 30 KiB on average, as in a distribution."""
    left = total
    while left > 0:
        size = min(left, int(2 ** (chance.uniform(4, 15) if chance.random() < 0.97 else chance.uniform(15, 22))))
        left -= size
        yield size


class Digester(io.RawIOBase):
    def __init__(self, file):
        self.file, self.hash, self.size = file, hashlib.sha256(), 0

    def write(self, data):
        self.hash.update(data)
        self.size += len(data)
        return self.file.write(data)


def write_layer(path, folder, total, seed):
    """A tar of `total` bytes of files below `folder`; gives its digest and size."""
    chance = random.Random(seed)
    with open(path, "wb") as file:
        out = Digester(file)
        with tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar:
            for number, size in enumerate(sizes(chance, total)):
                info = tarfile.TarInfo(f"{folder}/{number % 97}/{number}-{seed % 7 if number % 11 == 0 else 0}")
                info.size, info.mtime = size, 1_700_000_000 + number % 1000
                tar.addfile(info, io.BytesIO(chance.randbytes(size)))
    return "sha256:" + out.hash.hexdigest(), out.size


class LayeredImage:
    """parts: [(folder, bytes, seed)], lowest first; layers that two images have in common are written once."""

    def __init__(self, store):
        self.store, self.layers = store, {}
        os.makedirs(store, exist_ok=True)

    def layout(self, path, parts):
        blobs = os.path.join(path, "blobs", "sha256")
        os.makedirs(blobs)
        layers = []
        for part in parts:
            if part not in self.layers:
                tar = os.path.join(self.store, f"{len(self.layers)}.tar")
                self.layers[part] = (tar, *write_layer(tar, *part))
            tar, digest, size = self.layers[part]
            os.link(tar, os.path.join(blobs, digest[7:]))
            layers.append({"mediaType": "application/vnd.oci.image.layer.v1.tar", "digest": digest, "size": size})

        def add(document, kind):
            data = json.dumps(document).encode()
            digest = hashlib.sha256(data).hexdigest()
            with open(os.path.join(blobs, digest), "wb") as file:
                file.write(data)
            return {"mediaType": "application/vnd.oci.image." + kind, "digest": "sha256:" + digest, "size": len(data)}
        config = add({"os": "linux", "architecture": "amd64", "config": {"Entrypoint": ["/a/0/0-0"]},
                      "rootfs": {"type": "layers", "diff_ids": [layer["digest"] for layer in layers]}}, "config.v1+json")
        manifest = add({"schemaVersion": 2, "config": config, "layers": layers}, "manifest.v1+json")
        for name, document in (("oci-layout", {"imageLayoutVersion": "1.0.0"}), ("index.json", {"schemaVersion": 2, "manifests": [manifest]})):
            with open(os.path.join(path, name), "w", encoding="utf-8") as file:
                json.dump(document, file)
        return path
