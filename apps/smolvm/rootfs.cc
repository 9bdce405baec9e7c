// `smolvm rootfs`: a root file system from nothing: programs with the libraries that they need,
// BusyBox, archives, directories, or a distribution by its own tool. The tree is collected first
// and written at once, as a directory, an archive or an image.
#include <fcntl.h>
#include <spawn.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>

#include "cli.h"
#include "default_image.h"
#include "image/tree/cpio_source.h"
#include "image/tree/erofs.h"
#include "image/tree/host_directory.h"
#include "image/tree/layer.h"
#include "image/tree/programs.h"
#include "image/tree/tar_writer.h"

extern char** environ;

namespace smolvm {
namespace {

using namespace smol;
using image::Tree;

// "HOST:PATH" -> both; without a colon the second is empty.
std::pair<std::string, std::string> halves(const std::string& text) {
  const std::size_t colon = text.rfind(":/");
  return colon == text.npos ? std::pair(text, std::string())
                            : std::pair(text.substr(0, colon), text.substr(colon + 1));
}

bool exists_in_path(const std::string& program) {
  const char* const path = std::getenv("PATH");
  for (const std::string_view folder : split(path != nullptr ? path : "/usr/bin:/bin", ':'))
    if (::access((std::string(folder) + "/" + program).c_str(), X_OK) == 0) return true;
  return ::access(("/usr/sbin/" + program).c_str(), X_OK) == 0;
}

// A child whose standard output is `out`; its errors are ours.
Result<pid_t> start(std::vector<std::string> words, int out) {
  std::vector<char*> argv;
  for (std::string& word : words) argv.push_back(word.data());
  argv.push_back(nullptr);
  posix_spawn_file_actions_t actions;
  ::posix_spawn_file_actions_init(&actions);
  ::posix_spawn_file_actions_adddup2(&actions, out, STDOUT_FILENO);
  pid_t child = 0;
  const int error = ::posix_spawnp(&child, argv[0], &actions, nullptr, argv.data(), environ);
  ::posix_spawn_file_actions_destroy(&actions);
  if (error != 0) return std::unexpected(Error::from_errno(error, "cannot run " + words[0]));
  return child;
}

Result<> wait_for(pid_t child, const std::string& name) {
  int status = 0;
  while (::waitpid(child, &status, 0) < 0)
    if (errno != EINTR) return fail_errno("cannot wait for {}", name);
  if (WIFSIGNALED(status)) return fail("{} was ended by signal {}", name, WTERMSIG(status));
  if (WEXITSTATUS(status) != 0) return fail("{} failed with status {}", name, WEXITSTATUS(status));
  return {};
}

Result<> apply_archive(Tree& tree, const std::string& path) {
  image::LayerOptions options{.name = path};
  if (path == "-") {
    TRY(image::apply_layer(tree, image::fd_bytes(STDIN_FILENO, "standard input"), options));
    return {};
  }
  TRY_ASSIGN(const base::UniqueFd fd, base::open_file(path, O_RDONLY));
  TRY(image::apply_layer(tree, image::fd_bytes(fd.get(), path), options));
  return {};
}

// mmdebstrap writes an archive to its standard output, as any user; debootstrap fills a directory,
// as root only.
Result<> bootstrap(Tree& tree, const Invocation& invocation, std::string& temporary) {
  const std::string suite = invocation.text("debootstrap"), mirror = invocation.text("mirror");
  const std::string include = invocation.text("include");
  if (exists_in_path("mmdebstrap")) {
    std::vector<std::string> words{"mmdebstrap", "--quiet", "--variant=essential", "--format=tar"};
    if (!include.empty()) words.push_back("--include=" + include);
    words.insert(words.end(), {suite, "-"});
    if (!mirror.empty()) words.push_back(mirror);
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno("cannot make a pipe");
    const base::UniqueFd from(ends[0]);
    base::UniqueFd to(ends[1]);
    TRY_ASSIGN(const pid_t child, start(words, to.get()));
    to.reset();
    const auto applied =
        image::apply_layer(tree, image::fd_bytes(from.get(), "mmdebstrap's output"),
                           {.name = "of mmdebstrap", .whiteouts = false});
    char rest[4096];
    while (!applied && ::read(from.get(), rest, sizeof(rest)) > 0) {
    }
    TRY(wait_for(child, "mmdebstrap"));
    if (!applied) return std::unexpected(applied.error());
    return {};
  }
  if (!exists_in_path("debootstrap"))
    return fail("--debootstrap needs mmdebstrap or debootstrap on this host");
  if (::geteuid() != 0) return fail("debootstrap works as root only; mmdebstrap is not installed");
  temporary = (std::filesystem::temp_directory_path() / "smolvm-rootfs-XXXXXX").string();
  if (::mkdtemp(temporary.data()) == nullptr)
    return fail_errno("cannot make a directory in {}", temporary);
  std::vector<std::string> words{"debootstrap", "--variant=minbase"};
  if (!include.empty()) words.push_back("--include=" + include);
  words.insert(words.end(), {suite, temporary});
  if (!mirror.empty()) words.push_back(mirror);
  TRY_ASSIGN(const pid_t child, start(words, STDERR_FILENO));
  TRY(wait_for(child, "debootstrap"));
  return image::add_host_directory(tree, temporary);
}

// The folders that every Linux root has, /usr merged as all distributions have it; users and names
// for C libraries.
Result<> add_skeleton(Tree& tree) {
  for (const char* const name :
       {"/dev", "/etc", "/proc", "/run", "/sys", "/usr/bin", "/usr/lib", "/var"})
    TRY(tree.add_directory(name));
  TRY(tree.add_directory("/root", {.mode = 0700}));
  for (const char* const name : {"/tmp", "/var/tmp"})
    TRY(tree.add_directory(name, {.mode = 01777}));
  for (const auto& [name, target] : {std::pair("/bin", "usr/bin"),
                                     {"/sbin", "usr/sbin"},
                                     {"/lib", "usr/lib"},
                                     {"/lib64", "usr/lib64"},
                                     {"/usr/sbin", "bin"}})
    TRY(tree.add_symlink(name, target));
  TRY(tree.add_directory("/usr/lib64"));
  TRY(tree.add_file("/etc/passwd",
                    "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n"));
  TRY(tree.add_file("/etc/group", "root:x:0:\nnobody:x:65534:\n"));
  TRY(tree.add_file("/etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"));
  return {};
}

// Where a program goes that no path is said for.
std::string default_place(const std::string& host) {
  for (const char* const folder : {"/usr/", "/bin/", "/sbin/", "/opt/"})
    if (host.starts_with(folder) && host.find("/../") == host.npos) return host;
  return "/usr/bin/" + host.substr(host.rfind('/') + 1);
}

Result<> add_programs(Tree& tree, const Invocation& invocation) {
  image::ProgramAdder programs(tree);
  for (const std::string& word : invocation.words) {
    const auto [host, inside] = halves(word);
    TRY(programs.add(host, inside.empty() ? default_place(host) : inside));
  }
  if (programs.uses_glibc() && !tree.find("/etc/nsswitch.conf"))
    TRY(tree.add_file("/etc/nsswitch.conf", "passwd: files\ngroup: files\nhosts: files dns\n"));
  if (invocation.has("verbose"))
    for (const std::string& path : programs.added()) fmt::print(stderr, "with {}\n", path);
  for (const std::string& hint : programs.hints()) fmt::print(stderr, "Note: {}\n", hint);
  return {};
}

Result<> add_files(Tree& tree, const std::string& text) {
  auto [host, inside] = halves(text);
  if (inside.empty()) return fail("--add {}: HOST:PATH with an absolute PATH is wanted", text);
  struct stat status{};
  if (::stat(host.c_str(), &status) != 0) return fail_errno("cannot add {}", host);
  if (S_ISDIR(status.st_mode)) return image::add_host_directory(tree, host, inside);
  if (inside.ends_with('/')) inside += host.substr(host.rfind('/') + 1);
  TRY(tree.add_host_file(
      inside, host,
      {.mode = static_cast<u16>(status.st_mode & 07777),
       .uid = ::geteuid() == 0 ? status.st_uid : 0,
       .gid = ::geteuid() == 0 ? status.st_gid : 0,
       .mtime = {status.st_mtim.tv_sec, static_cast<u32>(status.st_mtim.tv_nsec)}}));
  return {};
}

Result<> collect(Tree& tree, const Invocation& invocation, std::string& temporary) {
  const bool from_nothing =
      !invocation.has("tar") && !invocation.has("dir") && !invocation.has("debootstrap");
  if (invocation.has("debootstrap")) TRY(bootstrap(tree, invocation, temporary));
  for (const std::string& path : invocation.list("dir")) TRY(image::add_host_directory(tree, path));
  for (const std::string& path : invocation.list("tar")) TRY(apply_archive(tree, path));
  if (from_nothing) TRY(add_skeleton(tree));
  if (invocation.has("busybox"))
    TRY(image::add_cpio(tree, default_image(),
                        [](std::string_view path) { return path.starts_with("bin/"); }));
  TRY(add_programs(tree, invocation));
  for (const std::string& text : invocation.list("add")) TRY(add_files(tree, text));
  return {};
}

Result<std::optional<image::Timestamp>> source_date() {
  const char* const text = std::getenv("SOURCE_DATE_EPOCH");
  if (text == nullptr || *text == '\0') return std::nullopt;
  char* end = nullptr;
  const long long seconds = std::strtoll(text, &end, 10);
  if (*end != '\0') return fail("SOURCE_DATE_EPOCH is '{}', not a number of seconds", text);
  return image::Timestamp{seconds, 0};
}

// Written beside its name and renamed: a file that is there is whole.
Result<> write_file(const Tree& tree, const std::string& out) {
  TRY_ASSIGN(const auto latest, source_date());
  const std::string partial = fmt::format("{}.partial-{}", out, ::getpid());
  const auto written = [&]() -> Result<> {
    TRY_ASSIGN(const base::UniqueFd fd, base::open_file(partial, O_RDWR | O_CREAT | O_EXCL));
    if (out.ends_with(".erofs")) {
      TRY(image::write_erofs(tree, fd.get(), {.latest = latest}));
    } else {
      TRY(image::write_tar(
          tree, [&](ConstByteSpan bytes) { return base::write_all(fd.get(), bytes, out); },
          {.latest = latest}));
    }
    if (::rename(partial.c_str(), out.c_str()) != 0) return fail_errno("cannot make {}", out);
    return {};
  }();
  if (!written) ::unlink(partial.c_str());
  return written;
}

}  // namespace

Result<int> run_rootfs(const Invocation& invocation) {
  const std::string out = invocation.text("output");
  if (out.empty())
    return fail(
        "-o says where the root file system goes: a name ending in .erofs or .tar, or a directory");
  if (invocation.words.empty() && !invocation.has("tar") && !invocation.has("dir") &&
      !invocation.has("debootstrap") && !invocation.has("busybox") && !invocation.has("add"))
    return fail(
        "nothing to make a root file system of: name programs, or say --busybox, --add, --tar, "
        "--dir or --debootstrap");
  Tree tree;
  std::string temporary;
  auto done = collect(tree, invocation, temporary);
  if (done && (out.ends_with(".erofs") || out.ends_with(".tar"))) {
    done = write_file(tree, out);
  } else if (done) {
    const auto written = image::write_directory(tree, out);
    if (!written) done = std::unexpected(written.error());
    if (written && written->skipped_devices > 0)
      fmt::print(stderr, "Note: {} device nodes need root and are left out\n",
                 written->skipped_devices);
  }
  std::error_code ignored;  // the system's temporary directory is emptied by others, too
  if (!temporary.empty()) std::filesystem::remove_all(temporary, ignored);
  if (!done) return std::unexpected(done.error());
  u64 bytes = 0, files = 0;
  TRY(tree.walk([&](const std::string&, image::NodeId id) -> Result<> {
    ++files;
    bytes += tree.node(id).size;
    return {};
  }));
  fmt::print("Created root file system: {} ({} names, {:.1f} MiB)\n", out, files,
             static_cast<double>(bytes) / kMiB);
  return 0;
}

}  // namespace smolvm
