/* smol-init: PID 1 of a guest, its agent, and the supervisor of its services.
 *
 * The problem: start programs exactly as asked, pass their streams, and hand their ends to the host
 * without loss or guesswork, in a kernel that has just come up and with nothing else installed.
 * The choice: PID 1 must not die, so it does little: it sets the machine up once, then accepts,
 * forks, reaps and restarts. Each request of the host is a forked child that speaks for itself on
 * its own connection and may die without harm. Whatever the host sends, the answer is a frame that
 * says what is wrong, never an abort.
 *
 * Files, in the order of things: main.c (start), machine.c (marker, console, end), mounts.c (kernel
 * file systems), modules.c (stock kernels), wire.c (frames), run.c (boot connection), setup.c
 * (SETUP: parsing, order), root.c, network.c, places.c (shares, disks, secrets, sockets), config.c
 * (parsing CONFIG), program.c (user, environment), users.c (passwd and group), child.c (starting a
 * program), pump.c (its streams), services.c (the supervisor), agent.c (PID 1's loop), request.c
 * (what a child does for a connection), copy.c (tar streams), stats.c, failure.c (texts).
 */
#ifndef SMOL_GUEST_INIT_H
#define SMOL_GUEST_INIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#include "guest/protocol/protocol.h"

#ifdef __cplusplus
extern "C" {
#endif

/* --- Failures: a text that is complete by itself, filled where the failure is known. -------------
 */
struct failure {
  char text[512];
};
/* Fills `failure` (keeps an earlier text) and returns false. %s and %d as in printf. */
bool fail(struct failure* failure, const char* format, ...) __attribute__((format(printf, 2, 3)));

/* --- machine.c ----------------------------------------------------------------------------------
 */
void write_boot_marker(void);
/* Opens /dev/console on descriptors 0 to 2 where the kernel could not. */
void open_console(void);
void say(const char* text); /* one line on the console: "smol-init: text" */
void say_failure(const struct failure* failure);
/* The value of WORD on the kernel's command line: "" for a bare word, NULL when absent. The first
 * one counts. */
const char* kernel_argument(const char* word);
/* The whole command line; "" when /proc is not there. */
const char* kernel_command_line(void);
/* How willingly the out-of-memory killer takes this process: "-1000" never, "0" as any other. */
void set_oom_score(const char* score);
/* Kills every other process and reaps them all. */
void kill_everything(void);
/* Notes a mount whose file system must be clean at the end, by any path that it has now. */
void remember_to_settle(const char* path);
/* Syncs, and remounts what was noted read-only, so that nothing has to be replayed at its next
 * mount.
 */
void settle_file_systems(void);
/* Syncs and ends the machine: power off where the kernel can (ACPI), else reset. Never returns. */
_Noreturn void end_machine(void);

/* --- mounts.c -----------------------------------------------------------------------------------
 */
/* /proc, /sys, /dev and below; what is there already or cannot be made is left alone. */
void mount_kernel_file_systems(void);
/* /run, /tmp, /dev/shm: memory-backed, as `writable_root` needs. */
void mount_temporary_file_systems(bool writable_root);
/* mkdir -p for an absolute path. */
bool make_folders(const char* path, struct failure* failure);

/* --- modules.c ----------------------------------------------------------------------------------
 */
/* Loads each file that /etc/smol/modules names, with its parameters from the kernel command line.
 */
bool load_modules(struct failure* failure);

/* --- config.c -----------------------------------------------------------------------------------
 */
struct run_config {
  struct smol_config_head head;
  const char* directory;
  const char* user;
  const char* log;
  char** arguments;   /* argc entries and NULL; one allocation with the environment */
  char** environment; /* envc entries, room for `spare` more, NULL at the end */
  size_t spare;
};
enum { SPARE_ENVIRONMENT = 4 };
/* `payload` must outlive `config`, which points into it. Host-controlled: everything is checked.
 * spare: entries that add_environment will add at most. */
bool parse_config(char* payload, size_t size, size_t spare, struct run_config* config,
                  struct failure* failure);
const char* environment_value(const struct run_config* config, const char* name);
/* Adds an entry at the end. `entry` must outlive the config. Beyond `spare` nothing happens. */
void add_environment(struct run_config* config, char* entry);

/* --- setup.c ------------------------------------------------------------------------------------
 */
enum { MAX_SETUP_STRINGS = 6 };
struct setup_item {
  uint32_t kind;
  uint32_t flags;
  const char* strings[MAX_SETUP_STRINGS]; /* as many as the kind has */
  char* tail;                             /* of SECRET and SERVICE: what follows the strings */
  size_t tail_size;
};
/* `payload` must outlive `item`, which points into it. Host-controlled: everything is checked. */
bool parse_setup(char* payload, size_t size, struct setup_item* item, struct failure* failure);
/* Keeps a SETUP of the boot connection; `payload` is malloc'ed and taken over. */
bool keep_setup(char* payload, size_t size, struct failure* failure);
/* Does all that was kept: the root first, the rest in its order. host: the boot connection, whose
 * end ends the wait for an init script. */
bool apply_setups(int host, struct failure* failure);
/* Does one thing in a running machine. May be called in a forked child. */
bool apply_request(const struct setup_item* item, struct failure* failure);
/* Default environment entries and secrets of SETUP. */
size_t extra_environment(char*** entries);
const char* set_hostname_text(void); /* what SETUP said; "" for nothing */

/* --- root.c -------------------------------------------------------------------------------------
 */
struct root_config {
  uint32_t kind; /* enum smol_root_kind */
  const char* device;
  const char* type;
  const char* upper_device;
  const char* upper_type;
};
/* Makes the configured root `/`. */
bool enter_root(const struct root_config* root, struct failure* failure);
/* The file system's type by its magic number in the device's first 4 KiB; NULL when unknown. */
const char* probe_file_system(const unsigned char* head, size_t size);
/* type "": found by its magic number. */
bool mount_device(const char* device, const char* type, const char* where, bool writable,
                  struct failure* failure);
/* Lets a mounted ext4 take all of its device, which the host may have made larger. Others are left
 * alone; a failure is said on the console. */
void grow_file_system(const char* device, const char* where);

/* --- network.c ----------------------------------------------------------------------------------
 */
struct network_config {
  const char* interface;
  const char* addresses; /* lists: separated by single spaces */
  const char* gateways;
  const char* dns;
  const char* search;
  const char* mtu;
};
void set_up_loopback(void);
bool set_up_network(const struct network_config* network, struct failure* failure);
/* Parses "A.B.C.D/LEN" or its IPv6 like; without `prefix` the length is not allowed. Returns the
 * address's size, 4 or 16; 0 when it is none. */
size_t parse_address(const char* text, size_t length, unsigned char* address, unsigned* prefix);

/* --- places.c -----------------------------------------------------------------------------------
 */
bool mount_share(const char* tag, const char* path, bool read_only, struct failure* failure);
bool unmount_path(const char* path, struct failure* failure);
bool mount_disk(const char* device, const char* type, const char* path, bool read_only,
                struct failure* failure);
bool write_secret(const char* name, const char* owner, const char* value, size_t size,
                  struct failure* failure);
/* Listens on `path` and forks a process that passes each connection on to the host's `port`. */
bool forward_socket(const char* path, const char* port, const char* owner, struct failure* failure);
/* Copies bytes both ways until both directions are at their end. */
void relay(int one, int other);

/* --- program.c ----------------------------------------------------------------------------------
 */
struct user;
/* Finds the user and completes the environment: what SETUP gave, and defaults. */
bool prepare_program(struct run_config* config, struct user* user, struct failure* failure);
/* How many entries prepare_program may add. */
size_t spare_environment(void);

/* --- users.c ------------------------------------------------------------------------------------
 */
enum { MAX_GROUPS = 64 };
struct user {
  uid_t uid;
  gid_t gid;
  gid_t groups[MAX_GROUPS];
  size_t group_count;
  char home[256];
};
bool find_user(const char* spelled, struct user* user, struct failure* failure);

/* --- child.c ------------------------------------------------------------------------------------
 */
struct child {
  pid_t pid;
  int input;    /* write end to the program; the terminal's own side with a tty; -1 closed */
  int output;   /* read end; the terminal's own side with a tty; -1 closed */
  int errors;   /* read end; -1 with a tty or closed */
  int terminal; /* with a tty: the program's side, held open so that closing it there is no hang-up;
                   else -1 */
  bool tty;
};
/* Whether programs get a session of their own even without a terminal. */
extern bool programs_lead_sessions;
/* After a failed start: 127 and 126 as a shell's (detached programs only), else 1. */
extern int failed_start_status;
/* Starts the program. A failed exec is not a failure here: the program ends with 127 or 126. */
bool start_child(const struct run_config* config, const struct user* user, struct child* child,
                 struct failure* failure);
/* Starts the program in a session of its own, without streams: input is empty, output goes to the
 * config's log, or to `default_log`. Here a failed exec is a failure. -1 on a failure. */
pid_t start_detached(const struct run_config* config, const struct user* user,
                     const char* default_log, struct failure* failure);
void set_window(int terminal, struct smol_winsize window);

/* --- wire.c -------------------------------------------------------------------------------------
 */
/* A blocking send of one whole frame. False when the host is gone. */
bool send_frame(int host, uint16_t type, const void* payload, size_t size);
bool send_exit(int host, uint32_t kind, int32_t value, const char* text);
/* The bound of a frame type that the host may send; 0 when it may not. */
size_t host_frame_bound(uint16_t type);
/* Bounds and flags of a header from the host. */
bool check_header(const struct smol_frame_header* header, struct failure* failure);
/* Blocking read of exactly `size` bytes; false at the end of the stream or an error. */
bool receive_exactly(int host, void* buffer, size_t size);

bool send_done(int host, int error, uint32_t problems, const char* text);
bool send_hello(int host);
/* One whole frame of the host into malloc'ed memory with a zero byte behind it. */
bool receive_frame(int host, struct smol_frame_header* header, char** payload,
                   struct failure* failure);

/* --- vsock.c ------------------------------------------------------------------------------------
 */
/* Connects to the host. -1 with `*no_device` set when this kernel has no vsock at all. */
int connect_host(bool* no_device);
/* One try. -1 with errno. */
int connect_port(uint32_t port);
/* A listener for the host's requests; -1 with errno. */
int listen_for_host(void);
/* The next connection of the host; -1 when there is none. Nobody else is let in. */
int accept_host(int listener);

/* --- run.c --------------------------------------------------------------------------------------
 */
/* HELLO, SETUP, then CONFIG, the program, EXIT, and the wait for the host to close; or AGENT, and
 * all that follows. */
void run_session(int host);

/* --- services.c ---------------------------------------------------------------------------------
 */
/* Parses and starts a service (or runs an init script to its end). */
bool add_service(const struct setup_item* item, int host, struct failure* failure);
/* A child of PID 1 has ended. True when it was a service's. */
bool service_ended(pid_t pid, int status);
/* Starts what is due. Returns ms until the next start; -1 for none. */
int tend_services(void);
void stop_services(void); /* nothing is started again */
/* Sends services that have one their own stop signal; false: none of them runs. */
bool signal_services(void);
bool own_signal_services_run(void);
/* Whether the main service has ended for good, and how. */
bool main_service_ended(int* status, bool* out_of_memory);

/* --- agent.c ------------------------------------------------------------------------------------
 */
/* PID 1 of a machine that stays up; returns when everything has ended and been killed. */
void run_agent(int host, int signals);

/* --- request.c, copy.c, stats.c -----------------------------------------------------------------
 */
/* In a child: serves one connection. */
void serve_request(int host, int signals);
void serve_copy_in(int host, char* payload, size_t size);
void serve_copy_out(int host, char* payload, size_t size);
void fill_stats(struct smol_stats* stats);
/* Numbers of /proc texts, apart from reading them. */
void parse_loadavg(char* text, struct smol_stats* stats);
void parse_meminfo(char* text, struct smol_stats* stats);
void parse_proc_stat(char* text, long ticks_per_second, struct smol_stats* stats);

#ifdef __cplusplus
}
#endif
#endif
