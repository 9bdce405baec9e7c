/* smol-init: PID 1 of a guest. One process, one thread, one program to run.
 *
 * The problem: start one program exactly as asked, pass its streams, and hand its end to the host
 * without loss or guesswork, in a kernel that has just come up and with nothing else installed.
 * The choice: no supervisor, no allocation on the way but for the CONFIG, one poll loop. PID 1 must
 * not die: whatever the host sends, the answer is an EXIT frame and an orderly end of the machine.
 *
 * Files: main.c (order of things), failure.c (texts), mounts.c (kernel file systems), root.c (the
 * program's root), modules.c (stock kernels), config.c (parsing CONFIG), wire.c (frames), session.c
 * (the poll loop), child.c (starting the program), users.c (passwd and group), machine.c (marker,
 * console, end).
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
/* The value of WORD on the kernel's command line: "" for a bare word, NULL when absent. The first
 * one counts. */
const char* kernel_argument(const char* word);
/* The whole command line; "" when /proc is not there. */
const char* kernel_command_line(void);
/* How willingly the out-of-memory killer takes this process: "-1000" never, "0" as any other. */
void set_oom_score(const char* score);
/* Kills every other process and reaps them all. */
void kill_everything(void);
/* Syncs and ends the machine: power off where the kernel can (ACPI), else reset. Never returns. */
_Noreturn void end_machine(void);

/* --- mounts.c -----------------------------------------------------------------------------------
 */
/* /proc, /sys, /dev and below; what is there already or cannot be made is left alone. */
void mount_kernel_file_systems(void);
/* /run, /tmp, /dev/shm: memory-backed, as `writable_root` needs. */
void mount_temporary_file_systems(bool writable_root);
void set_up_host(const char* hostname); /* the name, where given, and the loopback interface */

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
  const char* hostname;
  const char* root_device;
  const char* root_type;
  char** arguments;   /* argc entries and NULL */
  char** environment; /* envc entries, room for SPARE_ENVIRONMENT more, NULL at the end */
};
enum { SPARE_ENVIRONMENT = 4 };
/* `payload` must outlive `config`, which points into it. Host-controlled: everything is checked. */
bool parse_config(char* payload, size_t size, struct run_config* config, struct failure* failure);
const char* environment_value(const struct run_config* config, const char* name);
/* Adds NAME=value unless there. `entry` must outlive the config. At most SPARE_ENVIRONMENT times.
 */
void add_environment(struct run_config* config, char* entry);

/* --- root.c -------------------------------------------------------------------------------------
 */
/* Makes the configured root `/`. */
bool enter_root(const struct run_config* config, struct failure* failure);
/* The file system's type by its magic number in the device's first 4 KiB; NULL when unknown. */
const char* probe_file_system(const unsigned char* head, size_t size);

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
/* Starts the program. A failed exec is not a failure here: the program ends with 127 or 126. */
bool start_child(const struct run_config* config, const struct user* user, struct child* child,
                 struct failure* failure);
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

/* --- session.c ----------------------------------------------------------------------------------
 */
/* Connects to the host. -1 with `*no_device` set when this kernel has no vsock at all. */
int connect_host(bool* no_device);
/* HELLO, CONFIG, the program, EXIT; then waits for the host to close. */
void run_session(int host);

#ifdef __cplusplus
}
#endif
#endif
