/* SETUP: what the host says of the machine before anything runs in it.
 *
 * At boot the frames are kept until CONFIG or AGENT says that there are no more: the root has to be
 * entered before paths mean anything, wherever the host put it. Afterwards they come one at a time,
 * as requests, and only the kinds that change nothing in PID 1 are taken.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "guest/init/init.h"

struct kind {
  uint8_t strings;
  bool tail;
  bool at_boot, later;
  uint32_t flags; /* those that it may have */
};

static const struct kind kinds[] = {
    [SMOL_SETUP_ROOT] = {4, false, true, false, 3},
    [SMOL_SETUP_HOSTNAME] = {1, false, true, true, 0},
    [SMOL_SETUP_NETWORK] = {6, false, true, true, 0},
    [SMOL_SETUP_MOUNT] = {2, false, true, true, SMOL_MOUNT_READ_ONLY},
    [SMOL_SETUP_UNMOUNT] = {1, false, false, true, 0},
    [SMOL_SETUP_DISK] = {3, false, true, true, SMOL_MOUNT_READ_ONLY},
    [SMOL_SETUP_TIME] = {1, false, true, true, 0},
    [SMOL_SETUP_SECRET] = {2, true, true, true, SMOL_SECRET_ENVIRONMENT},
    [SMOL_SETUP_ENVIRONMENT] = {1, false, true, false, 0},
    [SMOL_SETUP_SERVICE] = {1, true, true, false,
                            SMOL_SERVICE_RESTART_MASK | SMOL_SERVICE_MAIN | SMOL_SERVICE_INIT |
                                SMOL_SERVICE_STOP_MASK},
    [SMOL_SETUP_FORWARD] = {3, false, true, true, 0},
    [SMOL_SETUP_FOLDER] = {1, false, true, true, 0},
};

static const struct kind* kind_of(uint32_t number) {
  if (number >= sizeof kinds / sizeof kinds[0] || kinds[number].strings == 0) return NULL;
  return &kinds[number];
}

bool parse_setup(char* payload, size_t size, struct setup_item* item, struct failure* failure) {
  memset(item, 0, sizeof *item);
  struct smol_setup head;
  if (size < sizeof head) return fail(failure, "protocol: SETUP of %zu bytes is short", size);
  memcpy(&head, payload, sizeof head);
  const struct kind* kind = kind_of(head.kind);
  if (kind == NULL) return fail(failure, "protocol: SETUP of the unknown kind %u", head.kind);
  if ((head.flags & ~kind->flags) != 0)
    return fail(failure, "protocol: SETUP %u has unknown flags %#x", head.kind, head.flags);
  item->kind = head.kind;
  item->flags = head.flags;
  char* at = payload + sizeof head;
  char* end = payload + size;
  for (size_t i = 0; i < kind->strings; i++) {
    char* zero = memchr(at, '\0', (size_t)(end - at));
    if (zero == NULL) return fail(failure, "protocol: SETUP %u ends inside its strings", head.kind);
    item->strings[i] = at;
    at = zero + 1;
  }
  if (!kind->tail && at != end)
    return fail(failure, "protocol: SETUP %u has bytes after its strings", head.kind);
  item->tail = at;
  item->tail_size = (size_t)(end - at);
  return true;
}

/* --- What was kept
 * --------------------------------------------------------------------------------
 */

struct kept {
  struct kept* next;
  struct setup_item item;
};

static struct kept* first_kept;
static struct kept** last_kept = &first_kept;
static size_t kept_bytes, kept_items;

bool keep_setup(char* payload, size_t size, struct failure* failure) {
  struct kept* kept = calloc(1, sizeof *kept);
  if (kept == NULL) return fail(failure, "no memory for a SETUP");
  kept_bytes += size;
  if (++kept_items > SMOL_MAX_SETUPS || kept_bytes > SMOL_MAX_SETUP_BYTES)
    return fail(failure, "protocol: more SETUP than the bounds allow");
  if (!parse_setup(payload, size, &kept->item, failure)) return false;
  if (!kind_of(kept->item.kind)->at_boot)
    return fail(failure, "protocol: SETUP %u before the machine is up", kept->item.kind);
  *last_kept = kept;
  last_kept = &kept->next;
  return true;
}

static char** entries;
static size_t entry_count;
static const char* hostname_text = "";

size_t extra_environment(char*** out) {
  *out = entries;
  return entry_count;
}

const char* set_hostname_text(void) { return hostname_text; }

static bool add_entry(char* entry, struct failure* failure) {
  char** grown = realloc(entries, (entry_count + 1) * sizeof *entries);
  if (grown == NULL || entry == NULL) return fail(failure, "no memory for an environment");
  entries = grown;
  entries[entry_count++] = entry;
  return true;
}

static bool take_environment(const struct setup_item* item, struct failure* failure) {
  const char* text = item->strings[0];
  if (strchr(text, '=') == NULL || text[0] == '=')
    return fail(failure, "environment entry '%.100s' has no '='", text);
  return add_entry(strdup(text), failure);
}

static bool take_secret(const struct setup_item* item, struct failure* failure) {
  const char* name = item->strings[0];
  if (name[0] == '\0' || strchr(name, '/') != NULL || strcmp(name, ".") == 0 ||
      strcmp(name, "..") == 0)
    return fail(failure, "secret '%.100s': not a name", name);
  if ((item->flags & SMOL_SECRET_ENVIRONMENT) == 0)
    return write_secret(name, item->strings[1], item->tail, item->tail_size, failure);
  if (strchr(name, '=') != NULL || memchr(item->tail, '\0', item->tail_size) != NULL)
    return fail(failure, "secret '%.100s': a variable cannot hold that", name);
  size_t length = strlen(name);
  char* entry = malloc(length + item->tail_size + 2);
  if (entry == NULL) return fail(failure, "no memory for a secret");
  memcpy(entry, name, length);
  entry[length] = '=';
  memcpy(entry + length + 1, item->tail, item->tail_size);
  entry[length + 1 + item->tail_size] = '\0';
  return add_entry(entry, failure);
}

static bool take_time(const char* text, struct failure* failure) {
  char* end = NULL;
  errno = 0;
  unsigned long long ns = strtoull(text, &end, 10);
  if (text[0] < '0' || text[0] > '9' || *end != '\0' || errno != 0)
    return fail(failure, "time '%.40s': not a number of nanoseconds", text);
  struct timespec now = {.tv_sec = (time_t)(ns / 1000000000u), .tv_nsec = (long)(ns % 1000000000u)};
  if (clock_settime(CLOCK_REALTIME, &now) != 0)
    return fail(failure, "setting the time: %s", strerror(errno));
  return true;
}

static bool take_hostname(const char* name, struct failure* failure) {
  if (sethostname(name, strlen(name)) != 0)
    return fail(failure, "hostname '%.100s': %s", name, strerror(errno));
  hostname_text = name;
  return true;
}

static bool take(const struct setup_item* item, struct failure* failure) {
  const char* const* text = item->strings;
  bool read_only = (item->flags & SMOL_MOUNT_READ_ONLY) != 0;
  switch (item->kind) {
    case SMOL_SETUP_HOSTNAME:
      return take_hostname(text[0], failure);
    case SMOL_SETUP_NETWORK: {
      struct network_config network = {text[0], text[1], text[2], text[3], text[4], text[5]};
      return set_up_network(&network, failure);
    }
    case SMOL_SETUP_MOUNT:
      return mount_share(text[0], text[1], read_only, failure);
    case SMOL_SETUP_UNMOUNT:
      return unmount_path(text[0], failure);
    case SMOL_SETUP_DISK:
      return mount_disk(text[0], text[1], text[2], read_only, failure);
    case SMOL_SETUP_TIME:
      return take_time(text[0], failure);
    case SMOL_SETUP_SECRET:
      return take_secret(item, failure);
    case SMOL_SETUP_ENVIRONMENT:
      return take_environment(item, failure);
    case SMOL_SETUP_FORWARD:
      return forward_socket(text[0], text[1], text[2], failure);
    case SMOL_SETUP_FOLDER:
      return make_folders(text[0], failure);
    default:
      return fail(failure, "protocol: SETUP %u cannot be done here", item->kind);
  }
}

static bool take_root(struct root_config* root, struct failure* failure) {
  size_t roots = 0;
  for (struct kept* kept = first_kept; kept != NULL; kept = kept->next) {
    const struct setup_item* item = &kept->item;
    if (item->kind != SMOL_SETUP_ROOT) continue;
    if (++roots > 1) return fail(failure, "protocol: a second root");
    *root = (struct root_config){item->flags, item->strings[0], item->strings[1], item->strings[2],
                                 item->strings[3]};
    bool needs_device = root->kind == SMOL_ROOT_WRITABLE || root->kind == SMOL_ROOT_READONLY;
    if (needs_device && root->device[0] == '\0')
      return fail(failure, "protocol: SETUP names no root device");
    if (root->kind != SMOL_ROOT_OVERLAY && root->upper_device[0] != '\0')
      return fail(failure, "protocol: SETUP names an upper device without an overlay");
  }
  return enter_root(root, failure);
}

bool apply_setups(int host, struct failure* failure) {
  struct root_config root = {SMOL_ROOT_INITRAMFS, "", "", "", ""};
  if (!take_root(&root, failure)) return false;
  mount_temporary_file_systems(root.kind == SMOL_ROOT_WRITABLE || root.upper_device[0] != '\0');
  set_up_loopback();
  for (struct kept* kept = first_kept; kept != NULL; kept = kept->next) {
    const struct setup_item* item = &kept->item;
    if (item->kind == SMOL_SETUP_ROOT) continue;
    bool good =
        item->kind == SMOL_SETUP_SERVICE ? add_service(item, host, failure) : take(item, failure);
    if (!good) return false;
  }
  return true;
}

bool apply_request(const struct setup_item* item, struct failure* failure) {
  if (!kind_of(item->kind)->later ||
      (item->kind == SMOL_SETUP_SECRET && (item->flags & SMOL_SECRET_ENVIRONMENT) != 0))
    return fail(failure, "protocol: SETUP %u after the machine's start", item->kind);
  return take(item, failure);
}
