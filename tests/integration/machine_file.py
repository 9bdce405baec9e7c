"""`.smolmachine` files in Python, after docs/formats/smolmachine.md and nothing else: a writer, and where the parts of a file are."""
import hashlib
import struct

PAGE = 4096
PIECE = 1 << 20
KINDS = {"config": 1, "kernel": 2, "initramfs": 3, "root": 4, "disk": 5, "runtime": 6, "sbom": 7}


def digest(data):
    return hashlib.blake2b(data, digest_size=32).digest()


def pieces(data):
    return [digest(data[at:at + PIECE]) for at in range(0, len(data), PIECE)]


def padded(data):
    return data + bytes(-len(data) % PAGE)


def two_level(data):
    return digest(b"".join(pieces(data)))


def write(sections, program=b"", created=0):
    """sections: (kind's name, name, bytes). A container behind `program`, as bytes."""
    program = padded(program)
    body, records = b"", b""
    for kind, name, data in sections:
        stored = padded(data)
        records += struct.pack("<IIQQQQ32sIIHHI", KINDS[kind], 0, PAGE + len(body), len(data), len(data), len(data),
                               two_level(stored), len(pieces(stored)), 0, len(name), 0, 0)
        records += name.encode() + bytes(-len(name) % 8) + b"".join(pieces(stored))
        body += stored
    index = struct.pack("<8sIIQQ32sIIQ16s32sII", b"SMOLINDX", 1, len(sections), created, len(program),
                        two_level(program) if program else bytes(32), 0, 0, 0, bytes(16), bytes(32), 0, 0) + records
    index_offset = PAGE + len(body)
    trailer_offset = index_offset + len(padded(index))
    header = struct.pack("<8sIIQQQQQ32s32s3944x", b"SMOLMACH", 1, 0, trailer_offset + PAGE, index_offset, len(index),
                         trailer_offset, 0, digest(padded(index)), bytes(32))
    header += digest(header)
    trailer = struct.pack("<8sIIQ32s4008x", b"SMOLTAIL", 1, 0, trailer_offset + PAGE, digest(header))
    trailer += digest(trailer)
    return program + header + body + padded(index) + trailer


def parts(data):
    """Name and (first byte, end) of each part of a file; sections as "section 'NAME'"."""
    size = struct.unpack_from("<Q", data, len(data) - PAGE + 16)[0]
    base = len(data) - size
    index_offset, index_size, signature_offset, signature_size = struct.unpack_from("<QQQQ", data, base + 24)
    found = {}
    if base:
        found["the program"] = (0, base)
    found["the header"] = (base, base + PAGE)
    at = base + index_offset
    count = struct.unpack_from("<I", data, at + 12)[0]
    at += 136
    for _ in range(count):
        offset, stored = struct.unpack_from("<QQ", data, at + 8)
        piece_count, extent_count, name_length = struct.unpack_from("<IIH", data, at + 72)
        name = data[at + 88:at + 88 + name_length].decode()
        at += 88 + name_length + -name_length % 8 + 32 * piece_count + 16 * extent_count
        found[f"section '{name}'"] = (base + offset, base + offset + stored + -stored % PAGE)
    found["the index"] = (base + index_offset, base + signature_offset)
    if signature_size:
        found["the signature"] = (base + signature_offset, len(data) - PAGE)
    found["the trailer"] = (len(data) - PAGE, len(data))
    assert index_size <= signature_offset - index_offset
    return found
