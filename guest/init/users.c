/* Who the program runs as, by the image's own /etc/passwd and /etc/group.
 *
 * The C library's lookups would ask a name service that does not exist here; these files are lines
 * of fields between colons, read with a bounded buffer and no allocation.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/init/init.h"

enum { kMaxFields = 8, kLineSize = 4096 };

/* Reads the next line that is not too long into fields; returns their count, 0 at the end. */
static size_t next_entry(FILE* file, char* line, char** fields) {
  while (fgets(line, kLineSize, file) != NULL) {
    size_t length = strcspn(line, "\n");
    if (line[length] == '\0' && length == kLineSize - 1) {
      int c;
      while ((c = fgetc(file)) != EOF && c != '\n') {
      }
      continue;
    }
    line[length] = '\0';
    size_t count = 0;
    for (char* at = line; at != NULL && count < kMaxFields;) fields[count++] = strsep(&at, ":");
    if (count >= 4) return count;
  }
  return 0;
}

static bool parse_id(const char* text, uint32_t* id) {
  if (text[0] < '0' || text[0] > '9') return false;
  char* end = NULL;
  errno = 0;
  unsigned long long value = strtoull(text, &end, 10);
  /* The last number means "unchanged" to setuid and friends. */
  if (errno != 0 || *end != '\0' || value >= UINT32_MAX) return false;
  *id = (uint32_t)value;
  return true;
}

/* Finds a passwd line by name or by number and takes what it says. */
static bool find_in_passwd(const char* name, bool numeric, uid_t uid, struct user* user) {
  FILE* file = fopen("/etc/passwd", "re");
  if (file == NULL) return false;
  char line[kLineSize];
  char* fields[kMaxFields];
  bool found = false;
  size_t count;
  while (!found && (count = next_entry(file, line, fields)) > 0) {
    uint32_t entry_uid = 0;
    uint32_t entry_gid = 0;
    if (!parse_id(fields[2], &entry_uid) || !parse_id(fields[3], &entry_gid)) continue;
    found = numeric ? entry_uid == uid : strcmp(fields[0], name) == 0;
    if (!found) continue;
    user->uid = entry_uid;
    user->gid = entry_gid;
    if (count > 5) snprintf(user->home, sizeof user->home, "%s", fields[5]);
  }
  fclose(file);
  return found;
}

static bool listed(const char* members, const char* name) {
  size_t length = strlen(name);
  for (const char* at = members; *at != '\0';) {
    size_t size = strcspn(at, ",");
    if (size == length && memcmp(at, name, length) == 0) return true;
    at += size;
    if (*at == ',') at++;
  }
  return false;
}

static bool find_group(const char* name, gid_t* gid) {
  FILE* file = fopen("/etc/group", "re");
  if (file == NULL) return false;
  char line[kLineSize];
  char* fields[kMaxFields];
  bool found = false;
  while (!found && next_entry(file, line, fields) > 0) {
    found = strcmp(fields[0], name) == 0 && parse_id(fields[2], gid);
  }
  fclose(file);
  return found;
}

static void find_further_groups(const char* name, struct user* user) {
  FILE* file = fopen("/etc/group", "re");
  if (file == NULL) return;
  char line[kLineSize];
  char* fields[kMaxFields];
  while (user->group_count < MAX_GROUPS && next_entry(file, line, fields) > 0) {
    uint32_t gid = 0;
    if (listed(fields[3], name) && parse_id(fields[2], &gid))
      user->groups[user->group_count++] = gid;
  }
  fclose(file);
}

bool find_user(const char* spelled, struct user* user, struct failure* failure) {
  memset(user, 0, sizeof *user);
  strcpy(user->home, "/");
  char name[256];
  if (strlen(spelled) >= sizeof name) return fail(failure, "user '%.40s...': too long", spelled);
  strcpy(name, spelled[0] != '\0' ? spelled : "0");
  char* group = strchr(name, ':');
  if (group != NULL) *group++ = '\0';

  uint32_t uid = 0;
  bool numeric = parse_id(name, &uid);
  user->uid = uid;
  bool found = find_in_passwd(name, numeric, uid, user);
  if (!found && !numeric) return fail(failure, "user '%s': not in the image's /etc/passwd", name);
  if (!found && uid == 0) strcpy(user->home, "/root");
  if (!numeric && group == NULL) find_further_groups(name, user);
  if (group != NULL && !parse_id(group, &user->gid) && !find_group(group, &user->gid)) {
    return fail(failure, "group '%s': not in the image's /etc/group", group);
  }
  return true;
}
