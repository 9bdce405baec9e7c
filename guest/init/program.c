/* What every program gets: a user, and an environment with what the host gave the machine. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "guest/init/init.h"

size_t spare_environment(void) {
  char** entries = NULL;
  return SPARE_ENVIRONMENT + extra_environment(&entries);
}

/* Adds NAME=value where the program has none of that name. */
static void add_default(struct run_config* config, char* entry) {
  char name[256];
  size_t length = strcspn(entry, "=");
  if (length >= sizeof name) return;
  memcpy(name, entry, length);
  name[length] = '\0';
  if (environment_value(config, name) == NULL) add_environment(config, entry);
}

bool prepare_program(struct run_config* config, struct user* user, struct failure* failure) {
  if (!find_user(config->user, user, failure)) return false;
  char** entries = NULL;
  size_t count = extra_environment(&entries);
  /* A later setting replaces an earlier one. */
  while (count-- > 0) add_default(config, entries[count]);
  size_t room = strlen(user->home) + sizeof "HOME=";
  char* home = malloc(room);
  if (home == NULL) return fail(failure, "no memory for an environment");
  snprintf(home, room, "HOME=%s", user->home);
  static char path[] = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";
  static char terminal[] = "TERM=xterm";
  add_default(config, path);
  add_default(config, home);
  if ((config->head.flags & SMOL_CONFIG_TTY) != 0) add_default(config, terminal);
  return true;
}
