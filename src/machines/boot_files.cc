#include "machines/boot_files.h"

#include <limits.h>
#include <sys/stat.h>

#include <cstdlib>
#include <cstring>

#include "guest/protocol/cmdline.h"
#include "guest/protocol/protocol.h"
#include "image/cpio.h"
#include "machines/monitor_process.h"

namespace smol::machines {
namespace {

Result<bool> is_directory(const std::string& path) {
  struct stat status{};
  if (::stat(path.c_str(), &status) != 0)
    return fail_errno("cannot use {} as a root file system", path);
  return S_ISDIR(status.st_mode);
}

Result<> add_kernel(const BootRequest& request, BootFiles& files) {
  std::string kernel = request.kernel;
  std::string cmdline = SMOL_CMDLINE_STOCK, tables = "acpi";
  // The micro kernel knows one CPU.
  if (kernel == "micro" && request.cpus > 1)
    return fail("--cpus {}: the kernel 'micro' has 1 CPU; 'full' has more", request.cpus);
  if (kernel.empty()) kernel = request.cpus > 1 ? "full" : "micro";
  if (kernel == "micro" || kernel == "full") {
    cmdline = kernel == "full" ? SMOL_CMDLINE_FULL : SMOL_CMDLINE_MICRO;
    tables = "mp";
    TRY_ASSIGN(kernel, find_kernel(kernel));
  }
  if (!request.append.empty()) cmdline += " " + request.append;
  files.arguments.insert(files.arguments.end(),
                         {"--kernel", kernel, "--cmdline", cmdline, "--tables", tables});
  return {};
}

}  // namespace

std::string disk_name(unsigned index) {
  return fmt::format("/dev/vd{}", static_cast<char>('a' + index));
}

Result<std::string> find_kernel(const std::string& name) {
  if (name != "micro" && name != "full")
    return fail("unknown kernel '{}': micro and full are known", name);
  TRY_ASSIGN(const std::string folder, program_folder());
  std::string share = folder + "/../share/smolvm";
  if (const char* const given = std::getenv("SMOLVM_SHARE"); given != nullptr) share = given;
  const std::string path = share + "/vmlinux-" + name;
  char resolved[PATH_MAX];
  if (::realpath(path.c_str(), resolved) == nullptr)
    return fail_errno("the kernel {} is not there ({}; `tools/dev kernel {}` builds it)", name,
                      path, name);
  return std::string(resolved);
}

Result<BootFiles> prepare_boot(const BootRequest& request) {
  BootFiles files;
  TRY(add_kernel(request, files));
  TRY_ASSIGN(auto archive, image::CpioWriter::create("initrd"));
  bool directory = false;
  if (!request.rootfs.empty()) {
    TRY_ASSIGN(directory, is_directory(request.rootfs));
  }
  const bool disk = !request.rootfs.empty() && !directory;
  TRY(archive.append_archive(disk && !request.init_image.empty() ? request.init_image
                                                                 : request.image));
  if (!request.rootfs.empty()) {
    if (directory) {
      TRY(archive.append_directory(request.rootfs));
    } else {
      files.root.kind = SMOL_ROOT_OVERLAY;
      files.root.device = disk_name(files.disks++);
      files.arguments.insert(files.arguments.end(),
                             {"--disk", fmt::format("path={},readonly=on", request.rootfs)});
    }
  }
  if (!request.initrd.empty()) {
    TRY_ASSIGN(const auto bytes, base::read_file(request.initrd));
    TRY(archive.append_archive(bytes));
  }
  TRY_ASSIGN(files.initrd, std::move(archive).finish());
  files.arguments.insert(files.arguments.end(),
                         {"--initramfs", fmt::format("/proc/self/fd/{}", files.initrd.get())});
  return files;
}

}  // namespace smol::machines
