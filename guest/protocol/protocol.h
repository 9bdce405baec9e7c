/* The run protocol: what smol-init in a guest and the host's `smolvm machine run` say to each
 * other.
 *
 * One vsock stream a run. The guest connects out to the host (CID 2) at SMOL_RUN_PORT, which the
 * monitor turns into a connection to the Unix socket `SOCKET_1024` where the CLI listens. Outward
 * connection means that nobody polls: the host knows that init is up when the HELLO arrives.
 *
 * Everything is a frame: an 8-byte little-endian header, then `length` bytes. Both sides check each
 * length against the bounds below before they read on. Standard input has a window of its own, so
 * that a signal is never stuck behind input that the program does not read; output is held back
 * by the socket. Whole description: docs/formats/run-protocol.md.
 *
 * Plain C11 and C++; depends on nothing but <stdint.h>. Both ends are little-endian machines.
 */
#ifndef SMOL_GUEST_PROTOCOL_H
#define SMOL_GUEST_PROTOCOL_H

#include <stdint.h>

#define SMOL_PROTOCOL_VERSION 1u
#define SMOL_HOST_CID 2u
#define SMOL_RUN_PORT 1024u

/* A port that the monitor counts: one byte written here says "init runs". Never read. */
#define SMOL_BOOT_MARKER_PORT 0x5f1u
#define SMOL_BOOT_MARKER_INIT 1u

struct smol_frame_header {
  uint32_t length; /* of the payload alone, bytes */
  uint16_t type;   /* enum smol_frame_type */
  uint16_t flags;  /* 0; a receiver refuses others */
};

enum {
  SMOL_FRAME_HEADER_SIZE = 8,
  SMOL_MAX_CONFIG = 1u << 20,   /* payload of CONFIG, bytes */
  SMOL_MAX_DATA = 1u << 16,     /* payload of STDIN, STDOUT, STDERR, bytes */
  SMOL_MAX_OTHER = 4096,        /* payload of any other frame, bytes */
  SMOL_STDIN_WINDOW = 1u << 18, /* bytes of STDIN sent and not yet STDIN_TAKEN */
  SMOL_MAX_STRINGS = 16384,     /* arguments plus environment entries */
};

enum smol_frame_type {
  SMOL_FRAME_HELLO = 1,       /* guest: struct smol_hello */
  SMOL_FRAME_CONFIG = 2,      /* host, once, after HELLO: struct smol_config_head, then strings */
  SMOL_FRAME_STDIN = 3,       /* host: 1..SMOL_MAX_DATA bytes, within the window */
  SMOL_FRAME_STDIN_EOF = 4,   /* host: empty; no STDIN after it */
  SMOL_FRAME_STDIN_TAKEN = 5, /* guest: uint32_t, bytes by which the window opens again */
  SMOL_FRAME_STDOUT = 6,   /* guest: 1..SMOL_MAX_DATA bytes (the terminal's output, with a tty) */
  SMOL_FRAME_STDERR = 7,   /* guest: 1..SMOL_MAX_DATA bytes; never with a tty */
  SMOL_FRAME_WINSIZE = 8,  /* host: struct smol_winsize; ignored without a tty */
  SMOL_FRAME_SIGNAL = 9,   /* host: uint32_t, Linux signal number 1..64, for the program */
  SMOL_FRAME_STARTED = 10, /* guest: uint32_t, the program's process id; after a good exec */
  SMOL_FRAME_EXIT = 11,    /* guest, last: struct smol_exit, then text */
};

struct smol_hello {
  uint32_t version;   /* SMOL_PROTOCOL_VERSION */
  uint32_t reserved;  /* 0 */
  uint64_t uptime_ns; /* the guest's CLOCK_BOOTTIME */
};

struct smol_winsize {
  uint16_t rows;
  uint16_t columns;
};

enum smol_config_flags {
  SMOL_CONFIG_TTY = 1u << 0,   /* run on a pseudo-terminal */
  SMOL_CONFIG_STDIN = 1u << 1, /* STDIN frames will come; else standard input is /dev/null */
};

enum smol_root_kind {
  SMOL_ROOT_INITRAMFS = 0, /* run in the initial root file system */
  SMOL_ROOT_OVERLAY = 1,   /* a block device, read-only, under a tmpfs that takes the writes */
  SMOL_ROOT_WRITABLE = 2,  /* a block device, mounted read-write */
  SMOL_ROOT_READONLY = 3,  /* a block device, mounted read-only; /tmp and /run are tmpfs */
};

/* Followed by zero-terminated strings, back to back, nothing after the last:
 *   working directory   ""  : "/"
 *   user                ""  : root; else "uid", "uid:gid", "name", "name:group"
 *   hostname            ""  : the kernel's
 *   root device         as "/dev/vda"; "" with SMOL_ROOT_INITRAMFS
 *   root file system    "ext4", "squashfs", "erofs", ...; "" : found by its magic number
 *   argc arguments      the first is the program, looked up in PATH unless it has a slash
 *   envc entries        "NAME=value"; PATH, HOME, TERM get defaults where missing
 */
struct smol_config_head {
  uint32_t version; /* SMOL_PROTOCOL_VERSION */
  uint32_t flags;   /* enum smol_config_flags */
  uint32_t root;    /* enum smol_root_kind */
  uint32_t argc;    /* >= 1 */
  uint32_t envc;
  struct smol_winsize window; /* 0 by 0 where unknown */
};

enum { SMOL_CONFIG_LEADING_STRINGS = 5 };

enum smol_exit_kind {
  SMOL_EXIT_STATUS = 0,        /* value: 0..255 */
  SMOL_EXIT_SIGNAL = 1,        /* value: the signal that ended the program */
  SMOL_EXIT_INIT_FAILURE = 2,  /* the program never ran; text says what failed and why */
  SMOL_EXIT_OUT_OF_MEMORY = 3, /* the kernel's out-of-memory killer ended the program; value 9 */
};

struct smol_exit {
  uint32_t kind;
  int32_t value;
  /* then text: UTF-8, not terminated, at most SMOL_MAX_OTHER - 8 bytes */
};

#ifdef __cplusplus
#define SMOL_STATIC_ASSERT static_assert
#else
#define SMOL_STATIC_ASSERT _Static_assert
#endif
SMOL_STATIC_ASSERT(sizeof(struct smol_frame_header) == SMOL_FRAME_HEADER_SIZE, "wire layout");
SMOL_STATIC_ASSERT(sizeof(struct smol_hello) == 16, "wire layout");
SMOL_STATIC_ASSERT(sizeof(struct smol_config_head) == 24, "wire layout");
SMOL_STATIC_ASSERT(sizeof(struct smol_exit) == 8, "wire layout");

#endif
