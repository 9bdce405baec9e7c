/* Protocol version 2: what smol-init in a guest and programs on its host say to each other.
 *
 * Two ports. The guest connects out to the host (CID 2) at SMOL_RUN_PORT as soon as it is up, which
 * the monitor turns into a connection to the Unix socket `SOCKET_1024`: over it the machine is set
 * up (SETUP), and then runs one program (CONFIG) or stays up (AGENT). A machine that stays up
 * listens on SMOL_AGENT_PORT: the host connects through the monitor's socket with "CONNECT 1025\n",
 * one connection a request, any number at once. Outward connection at the start means that nobody
 * polls: the host knows that init is up when the HELLO arrives.
 *
 * Everything is a frame: an 8-byte little-endian header, then `length` bytes. Both sides check each
 * length against the bounds below before they read on. Standard input has a window of its own, so
 * that a signal is never stuck behind input that the program does not read; everything else is held
 * back by the socket. Whole description: docs/formats/run-protocol.md,
 * docs/formats/agent-protocol.md.
 *
 * Plain C11 and C++; depends on nothing but <stdint.h>. Both ends are little-endian machines.
 */
#ifndef SMOL_GUEST_PROTOCOL_H
#define SMOL_GUEST_PROTOCOL_H

#include <stdint.h>

#define SMOL_PROTOCOL_VERSION 2u
#define SMOL_HOST_CID 2u
#define SMOL_RUN_PORT 1024u
#define SMOL_AGENT_PORT 1025u

/* A port that the monitor counts: one byte written here says "init runs". Never read. */
#define SMOL_BOOT_MARKER_PORT 0x5f1u
#define SMOL_BOOT_MARKER_INIT 1u

/* Where a guest has what the protocol gives it. */
#define SMOL_SHARE_TAG "smol"                 /* mount_tag of the one virtio-9p device */
#define SMOL_SHARES_FOLDER "/run/smol/shares" /* one folder a share */
#define SMOL_SECRETS_FOLDER "/run/secrets"    /* one file a secret, on a tmpfs */

struct smol_frame_header {
  uint32_t length; /* of the payload alone, bytes */
  uint16_t type;   /* enum smol_frame_type */
  uint16_t flags;  /* 0; a receiver refuses others */
};

enum {
  SMOL_FRAME_HEADER_SIZE = 8,
  SMOL_MAX_CONFIG = 1u << 20,      /* payload of CONFIG, EXEC and SETUP, bytes */
  SMOL_MAX_DATA = 1u << 16,        /* payload of STDIN, STDOUT, STDERR, DATA, bytes */
  SMOL_MAX_OTHER = 8192,           /* payload of any other frame, bytes */
  SMOL_STDIN_WINDOW = 1u << 18,    /* bytes of STDIN sent and not yet STDIN_TAKEN */
  SMOL_MAX_STRINGS = 16384,        /* arguments plus environment entries */
  SMOL_MAX_SETUPS = 1024,          /* SETUP frames of one boot */
  SMOL_MAX_SETUP_BYTES = 1u << 22, /* all their payloads together */
};

enum smol_frame_type {
  SMOL_FRAME_HELLO = 1,       /* guest, first on each connection: struct smol_hello */
  SMOL_FRAME_CONFIG = 2,      /* host, boot: struct smol_config_head, then strings */
  SMOL_FRAME_STDIN = 3,       /* host: 1..SMOL_MAX_DATA bytes, within the window */
  SMOL_FRAME_STDIN_EOF = 4,   /* host: empty; no STDIN after it */
  SMOL_FRAME_STDIN_TAKEN = 5, /* guest: uint32_t, bytes by which the window opens again */
  SMOL_FRAME_STDOUT = 6,     /* guest: 1..SMOL_MAX_DATA bytes (the terminal's output, with a tty) */
  SMOL_FRAME_STDERR = 7,     /* guest: 1..SMOL_MAX_DATA bytes; never with a tty */
  SMOL_FRAME_WINSIZE = 8,    /* host: struct smol_winsize; ignored without a tty */
  SMOL_FRAME_SIGNAL = 9,     /* host: uint32_t, Linux signal number 1..64, for the program */
  SMOL_FRAME_STARTED = 10,   /* guest: uint32_t, the program's process id; after a good exec */
  SMOL_FRAME_EXIT = 11,      /* guest, last of a program: struct smol_exit, then text */
  SMOL_FRAME_SETUP = 12,     /* host, boot: before CONFIG or AGENT; agent: a request of its own */
  SMOL_FRAME_AGENT = 13,     /* host, boot: struct smol_agent; the machine stays up */
  SMOL_FRAME_READY = 14,     /* guest, boot: empty; all is set up and the agent listens */
  SMOL_FRAME_EXEC = 15,      /* host, agent: as CONFIG */
  SMOL_FRAME_COPY_IN = 16,   /* host, agent: struct smol_copy, then a path; DATA follows */
  SMOL_FRAME_COPY_OUT = 17,  /* host, agent: struct smol_copy, then a path */
  SMOL_FRAME_DATA = 18,      /* either: 1..SMOL_MAX_DATA bytes of a tar archive */
  SMOL_FRAME_DATA_END = 19,  /* either: empty; the archive is whole */
  SMOL_FRAME_PROBLEM = 20,   /* guest: int32_t errno, then text; one path could not be copied */
  SMOL_FRAME_DONE = 21,      /* guest, last of a request: struct smol_done, then text */
  SMOL_FRAME_STATS = 22,     /* host, agent: empty; guest: struct smol_stats */
  SMOL_FRAME_SHUTDOWN = 23,  /* host, agent: struct smol_shutdown */
  SMOL_FRAME_CONNECT = 24,   /* host, agent: a guest's Unix socket path; after DONE raw bytes */
  SMOL_FRAME_MAIN_EXIT = 25, /* guest, on a connection to SMOL_RUN_PORT of its own: as EXIT */
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

/* --- Programs: CONFIG, EXEC, and inside SETUP of a service
 * ----------------------------------------
 */

enum smol_config_flags {
  SMOL_CONFIG_TTY = 1u << 0,      /* run on a pseudo-terminal */
  SMOL_CONFIG_STDIN = 1u << 1,    /* STDIN frames will come; else standard input is /dev/null */
  SMOL_CONFIG_DETACHED = 1u << 2, /* EXEC only: STARTED and DONE at once; output goes to the log */
};

/* Followed by zero-terminated strings, back to back, nothing after the last:
 *   working directory   ""  : "/"
 *   user                ""  : root; else "uid", "uid:gid", "name", "name:group"
 *   log                 a file that takes both outputs of a detached program or a service, appended
 *                       to; "" : /dev/null for a detached program, the console for a service
 *   argc arguments      the first is the program, looked up in PATH unless it has a slash
 *   envc entries        "NAME=value"; PATH, HOME, TERM get defaults where missing
 */
struct smol_config_head {
  uint32_t version; /* SMOL_PROTOCOL_VERSION */
  uint32_t flags;   /* enum smol_config_flags */
  uint32_t argc;    /* >= 1 */
  uint32_t envc;
  uint32_t timeout_ms;        /* 0: none; EXEC only: after it the program is killed */
  struct smol_winsize window; /* 0 by 0 where unknown */
};

enum { SMOL_CONFIG_LEADING_STRINGS = 3 };

enum smol_exit_kind {
  SMOL_EXIT_STATUS = 0,        /* value: 0..255 */
  SMOL_EXIT_SIGNAL = 1,        /* value: the signal that ended the program */
  SMOL_EXIT_INIT_FAILURE = 2,  /* the program never ran; text says what failed and why */
  SMOL_EXIT_OUT_OF_MEMORY = 3, /* the kernel's out-of-memory killer ended the program; value 9 */
  SMOL_EXIT_TIMEOUT = 4,       /* EXEC's timeout_ms went by; value 124 */
};

struct smol_exit {
  uint32_t kind;
  int32_t value;
  /* then text: UTF-8, not terminated, at most SMOL_MAX_OTHER - 8 bytes */
};

/* --- SETUP
 * ------------------------------------------------------------------------------------------ At
 * boot any number, applied in their order when CONFIG or AGENT arrives (ROOT first wherever it
 * stands). On the agent's port one a connection, answered by DONE.
 */

enum smol_root_kind {
  SMOL_ROOT_INITRAMFS = 0, /* run in the initial root file system */
  SMOL_ROOT_OVERLAY = 1,   /* a read-only lower layer under one that takes the writes */
  SMOL_ROOT_WRITABLE = 2,  /* a block device, mounted read-write */
  SMOL_ROOT_READONLY = 3,  /* a block device, mounted read-only; /tmp and /run are tmpfs */
};

/* The strings behind each kind's head; all zero-terminated, nothing after the last. */
enum smol_setup_kind {
  /* flags: enum smol_root_kind. Strings: device ("/dev/vda"; "" with INITRAMFS; "" with OVERLAY:
   * the initial root file system is the lower layer), its type ("ext4", "squashfs", "erofs"; "":
   * found by its magic number), upper device ("": a tmpfs takes the writes), its type. Boot only.
   */
  SMOL_SETUP_ROOT = 1,
  SMOL_SETUP_HOSTNAME = 2, /* strings: name */
  /* strings: interface, addresses "A/LEN ...", gateways (at most one a family), DNS servers, search
   * domains, MTU ("": as it is); lists are separated by single spaces and may be empty */
  SMOL_SETUP_NETWORK = 3,
  SMOL_SETUP_MOUNT = 4,   /* flags: SMOL_MOUNT_*; strings: share's tag, absolute guest path */
  SMOL_SETUP_UNMOUNT = 5, /* strings: absolute guest path. Agent only. */
  SMOL_SETUP_DISK = 6,    /* flags: SMOL_MOUNT_*; strings: device, type, absolute guest path */
  SMOL_SETUP_TIME = 7,    /* strings: nanoseconds since 1970 UTC, decimal */
  /* flags: SMOL_SECRET_*. strings: name (no slash; with ENVIRONMENT a variable's), owner (as
   * CONFIG's user), then the value: all bytes up to the payload's end, zeros allowed in a file's.
   * Environment secrets go to every program that starts later. Boot only for ENVIRONMENT. */
  SMOL_SETUP_SECRET = 8,
  SMOL_SETUP_ENVIRONMENT = 9, /* strings: "NAME=value", a default for every program. Boot only. */
  /* flags: SMOL_SERVICE_*. strings: name, then (not a string) the payload of a CONFIG. Boot only.
   */
  SMOL_SETUP_SERVICE = 10,
  /* A guest's Unix socket whose connections go out to a host's vsock port (`SOCKET_port`).
   * strings: absolute guest path, port in decimal, owner (as CONFIG's user) */
  SMOL_SETUP_FORWARD = 11,
  /* strings: absolute guest path; it and its parents are made (mode 0755) where they are missing */
  SMOL_SETUP_FOLDER = 12,
};

struct smol_setup {
  uint32_t kind;
  uint32_t flags;
};

enum { SMOL_MOUNT_READ_ONLY = 1u << 0 };

enum { SMOL_SECRET_ENVIRONMENT = 1u << 0 /* else a file of mode 0400 in SMOL_SECRETS_FOLDER */ };

enum smol_service_flags {
  SMOL_SERVICE_RESTART_NEVER = 0,
  SMOL_SERVICE_RESTART_ON_FAILURE = 1, /* status other than 0, or a signal */
  SMOL_SERVICE_RESTART_ALWAYS = 2,
  SMOL_SERVICE_RESTART_MASK = 3,
  SMOL_SERVICE_MAIN = 1u << 8, /* its end (after its restarts) ends the machine: MAIN_EXIT */
  SMOL_SERVICE_INIT = 1u << 9, /* runs to its end before what follows; a failure fails the boot */
  /* The signal that asks it to end, where that is not SIGTERM: 1 to 64. */
  SMOL_SERVICE_STOP_SHIFT = 16,
  SMOL_SERVICE_STOP_MASK = 0x7f << SMOL_SERVICE_STOP_SHIFT,
};

struct smol_agent {
  uint32_t version; /* SMOL_PROTOCOL_VERSION */
  uint32_t flags;   /* 0 */
};

/* --- The agent's other requests
 * ---------------------------------------------------------------------
 */

struct smol_done {
  int32_t error;     /* 0: done; else an errno, with text that names what failed */
  uint32_t problems; /* of a copy: how many PROBLEMs there were */
  /* then text */
};

enum smol_copy_flags {
  SMOL_COPY_INTO = 1u << 0,  /* COPY_IN: the path is a folder that takes all members; without it the
                                path is as cp's last argument: an existing folder takes the members,
                                else the archive's first path component is renamed to it */
  SMOL_COPY_OWNER = 1u << 1, /* COPY_IN: `uid` and `gid` replace the archive's */
  SMOL_COPY_MODE = 1u << 2,  /* COPY_IN: `mode` replaces that of each file that is no folder */
  SMOL_COPY_FOLLOW = 1u << 3, /* COPY_OUT: the path's own symbolic link is followed */
  SMOL_COPY_CONTENTS =
      1u << 4, /* COPY_OUT: members are named relative to the path, without its name */
};

struct smol_copy {
  uint32_t flags;
  uint32_t uid;
  uint32_t gid;
  uint32_t mode;
  /* then the path: absolute, zero-terminated, nothing after it */
};

/* More fields may follow in later versions: a reader takes those that it knows. */
struct smol_stats {
  uint64_t uptime_ns;
  uint64_t realtime_ns;  /* since 1970 UTC, as the guest believes */
  uint64_t memory_total; /* this and the next four: bytes */
  uint64_t memory_free;
  uint64_t memory_available;
  uint64_t memory_cached; /* page cache and buffers */
  uint64_t swap_used;
  uint64_t load_1, load_5, load_15; /* load averages, times 1000 */
  uint64_t processes;
  uint64_t processes_running;
  uint64_t cpus;
  uint64_t cpu_busy_ns; /* since boot, over all CPUs */
  uint64_t cpu_idle_ns;
  uint64_t root_total; /* the root file system, bytes */
  uint64_t root_free;
};

enum { SMOL_SHUTDOWN_REBOOT = 1u << 0 };

struct smol_shutdown {
  uint32_t grace_ms; /* from SIGTERM to SIGKILL */
  uint32_t flags;
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
SMOL_STATIC_ASSERT(sizeof(struct smol_setup) == 8, "wire layout");
SMOL_STATIC_ASSERT(sizeof(struct smol_agent) == 8, "wire layout");
SMOL_STATIC_ASSERT(sizeof(struct smol_done) == 8, "wire layout");
SMOL_STATIC_ASSERT(sizeof(struct smol_copy) == 16, "wire layout");
SMOL_STATIC_ASSERT(sizeof(struct smol_stats) == 136, "wire layout");
SMOL_STATIC_ASSERT(sizeof(struct smol_shutdown) == 8, "wire layout");

#endif
