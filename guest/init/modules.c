/* Modules of kernels that we did not build.
 *
 * Our own kernels have every driver inside. A distribution's kernel has virtio, vsock and file
 * systems as modules, so an initramfs for it carries the files and a list of them, dependencies
 * first. A module's parameters stand on the kernel's command line (`virtio_mmio.device=...`), where
 * modprobe would find them; finit_module takes them as a string, so they are collected here.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "guest/init/init.h"

#define LIST "/etc/smol/modules"
enum { kCompressedFile = 4 }; /* MODULE_INIT_COMPRESSED_FILE, linux/module.h */

static bool same_name(const char* a, const char* b, size_t length) {
  for (size_t i = 0; i < length; i++) {
    char x = a[i] == '-' ? '_' : a[i];
    char y = b[i] == '-' ? '_' : b[i];
    if (x != y) return false;
  }
  return true;
}

/* "virtio_mmio.device=a virtio_mmio.device=b" -> "device=a device=b". */
static void collect_parameters(const char* name, size_t length, char* out, size_t size) {
  size_t used = 0;
  out[0] = '\0';
  for (const char* at = kernel_command_line(); *at != '\0';) {
    size_t token = strcspn(at, " ");
    if (token > length + 1 && at[length] == '.' && same_name(at, name, length)) {
      size_t rest = token - length - 1;
      if (used + rest + 2 > size) return;
      if (used > 0) out[used++] = ' ';
      memcpy(out + used, at + length + 1, rest);
      used += rest;
      out[used] = '\0';
    }
    at += token;
    at += strspn(at, " ");
  }
}

static bool load_module(const char* path, struct failure* failure) {
  const char* slash = strrchr(path, '/');
  const char* name = slash != NULL ? slash + 1 : path;
  static char parameters[4096];
  collect_parameters(name, strcspn(name, "."), parameters, sizeof parameters);
  int fd = open(path, O_RDONLY | O_CLOEXEC);
  if (fd < 0) return fail(failure, "module %s: %s", path, strerror(errno));
  size_t length = strlen(path);
  bool plain = length > 3 && strcmp(path + length - 3, ".ko") == 0;
  long result = syscall(SYS_finit_module, fd, parameters, plain ? 0 : kCompressedFile);
  int error = errno;
  close(fd);
  if (result != 0 && error != EEXIST) return fail(failure, "module %s: %s", path, strerror(error));
  return true;
}

bool load_modules(struct failure* failure) {
  FILE* list = fopen(LIST, "re");
  if (list == NULL) return true;
  char line[512];
  bool good = true;
  while (good && fgets(line, sizeof line, list) != NULL) {
    line[strcspn(line, "\r\n")] = '\0';
    if (line[0] != '\0' && line[0] != '#') good = load_module(line, failure);
  }
  fclose(list);
  return good;
}
