/* CONFIG, as bytes from the host, to pointers into those bytes. Refuses anything that is not exact.
 */
#include <stdlib.h>
#include <string.h>

#include "guest/init/init.h"

/* The next zero-terminated string; NULL when the payload ends before its zero. */
static char* next_string(char** at, char* end) {
  char* start = *at;
  char* zero = memchr(start, '\0', (size_t)(end - start));
  if (zero == NULL) return NULL;
  *at = zero + 1;
  return start;
}

static bool check_head(const struct smol_config_head* head, struct failure* failure) {
  if (head->version != SMOL_PROTOCOL_VERSION) {
    return fail(failure, "protocol: CONFIG has version %u, this init speaks %u", head->version,
                SMOL_PROTOCOL_VERSION);
  }
  const uint32_t known = SMOL_CONFIG_TTY | SMOL_CONFIG_STDIN | SMOL_CONFIG_DETACHED;
  if ((head->flags & ~known) != 0) {
    return fail(failure, "protocol: CONFIG has unknown flags %#x", head->flags);
  }
  if ((head->flags & SMOL_CONFIG_DETACHED) != 0 && head->flags != SMOL_CONFIG_DETACHED) {
    return fail(failure, "protocol: a detached program has neither terminal nor input");
  }
  if (head->argc == 0) return fail(failure, "protocol: CONFIG names no program");
  if (head->argc > SMOL_MAX_STRINGS || head->envc > SMOL_MAX_STRINGS ||
      head->argc + head->envc > SMOL_MAX_STRINGS) {
    return fail(failure, "protocol: CONFIG has more than %d strings", SMOL_MAX_STRINGS);
  }
  return true;
}

bool parse_config(char* payload, size_t size, size_t spare, struct run_config* config,
                  struct failure* failure) {
  memset(config, 0, sizeof *config);
  config->spare = spare;
  if (size < sizeof config->head)
    return fail(failure, "protocol: CONFIG of %zu bytes is short", size);
  memcpy(&config->head, payload, sizeof config->head);
  if (!check_head(&config->head, failure)) return false;
  char* at = payload + sizeof config->head;
  char* end = payload + size;
  const char** leading[SMOL_CONFIG_LEADING_STRINGS] = {&config->directory, &config->user,
                                                       &config->log};
  for (size_t i = 0; i < SMOL_CONFIG_LEADING_STRINGS; i++) {
    *leading[i] = next_string(&at, end);
    if (*leading[i] == NULL) return fail(failure, "protocol: CONFIG ends inside its strings");
  }
  size_t argc = config->head.argc;
  size_t envc = config->head.envc;
  char** table = calloc(argc + 1 + envc + spare + 1, sizeof *table);
  if (table == NULL) return fail(failure, "no memory for %zu arguments", argc + envc);
  config->arguments = table;
  config->environment = table + argc + 1;
  for (size_t i = 0; i < argc + envc; i++) {
    char* text = next_string(&at, end);
    if (text == NULL) return fail(failure, "protocol: CONFIG ends inside its strings");
    if (i >= argc && strchr(text, '=') == NULL) {
      return fail(failure, "environment entry '%.100s' has no '='", text);
    }
    *(i < argc ? &config->arguments[i] : &config->environment[i - argc]) = text;
  }
  if (at != end) return fail(failure, "protocol: CONFIG has bytes after its last string");
  if (config->arguments[0][0] == '\0') return fail(failure, "the program's name is empty");
  return true;
}

const char* environment_value(const struct run_config* config, const char* name) {
  size_t length = strlen(name);
  for (char** entry = config->environment; *entry != NULL; entry++) {
    if (strncmp(*entry, name, length) == 0 && (*entry)[length] == '=') return *entry + length + 1;
  }
  return NULL;
}

void add_environment(struct run_config* config, char* entry) {
  char** at = config->environment;
  size_t room = config->head.envc + config->spare;
  while (*at != NULL) at++;
  if ((size_t)(at - config->environment) < room) *at = entry;
}
