#include "image/capsule/pack.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "base/fd.h"

namespace smol::image {
namespace {

constexpr int kLevel = 19;  // packed once, carried for long

ConstByteSpan bytes_in(std::string_view text) {
  return {reinterpret_cast<const u8*>(text.data()), text.size()};
}

std::string short_hex(const Digest& digest) { return to_hex(digest).substr(0, 16); }

// A file beside its final place: renamed there when it is whole, removed otherwise.
class NewFile {
 public:
  static Result<NewFile> create(const std::string& path) {
    NewFile file;
    file.path_ = path;
    const std::string beside = fmt::format("{}.{}.partial", path, ::getpid());
    TRY_ASSIGN(file.fd_, base::open_file(beside, O_RDWR | O_CREAT | O_EXCL, 0644));
    file.beside_ = beside;
    return file;
  }
  NewFile(NewFile&& other) noexcept
      : fd_(std::move(other.fd_)),
        path_(std::move(other.path_)),
        beside_(std::move(other.beside_)) {
    other.beside_.clear();
  }
  NewFile& operator=(NewFile&&) = delete;
  ~NewFile() {
    if (!beside_.empty()) ::unlink(beside_.c_str());
  }
  int fd() const { return fd_.get(); }
  Result<u64> keep(bool executable) {
    if (executable && ::fchmod(fd(), 0755) != 0)
      return fail_errno("cannot make {} executable", path_);
    TRY_ASSIGN(const u64 size, base::file_size(fd(), path_));
    if (::rename(beside_.c_str(), path_.c_str()) != 0)
      return fail_errno("cannot put {} into its place", path_);
    beside_.clear();
    return size;
  }

 private:
  NewFile() = default;
  base::UniqueFd fd_;
  std::string path_, beside_;
};

// The program, padded to a page: where the container begins.
Result<u64> put_program(int fd, const std::string& path, ConstByteSpan program) {
  const u64 base = base::align_up(program.size(), kPageSize);
  TRY(base::write_all_at(fd, program, 0, path));
  if (::ftruncate(fd, static_cast<off_t>(base)) != 0) return fail_errno("cannot write {}", path);
  return base;
}

Result<std::vector<u8>> program_of(const PackParts& parts) {
  if (parts.program.empty()) return std::vector<u8>();
  if (!parts.split) return base::read_file(parts.program);
  const ConstByteSpan line = bytes_in(kSplitProgram);
  return std::vector<u8>(line.begin(), line.end());
}

Result<> add_base(ContainerWriter& writer, ConstByteSpan kernel, ConstByteSpan initramfs) {
  const SectionOptions packed{.zstd_level = kLevel};
  TRY(writer.add_bytes(SectionKind::kKernel, kSectionKernel, kernel, packed));
  return writer.add_bytes(SectionKind::kInitramfs, kSectionInit, initramfs, packed);
}

}  // namespace

Result<u64> write_pack(const std::string& path, const PackParts& parts, const SecretKey* key) {
  TRY_ASSIGN(const auto kernel, base::read_file(parts.kernel));
  TRY_ASSIGN(const auto program, program_of(parts));
  TRY_ASSIGN(NewFile file, NewFile::create(path));
  TRY_ASSIGN(const u64 base, put_program(file.fd(), path, program));
  TRY_ASSIGN(auto writer,
             ContainerWriter::create(file.fd(), path, base,
                                     {.created = parts.created, .key = {}, .key_source = {}}));
  PackedConfig config = parts.config;
  if (parts.split) {
    config.extra[kExtraKernelDigest] = to_hex(digest_of(kernel));
    config.extra[kExtraInitDigest] = to_hex(digest_of(parts.initramfs));
  }
  TRY(writer.add_bytes(SectionKind::kConfig, kSectionConfig, bytes_in(config.to_json()), {}));
  if (!parts.split) TRY(add_base(writer, kernel, parts.initramfs));
  if (!parts.sbom.empty())
    TRY(writer.add_bytes(SectionKind::kSbom, kSectionSbom, bytes_in(parts.sbom),
                         {.zstd_level = kLevel}));
  // Last, since it is the large one, and as it is: it is mapped, and equal roots stay equal.
  if (parts.root >= 0)
    TRY(writer.add_file(SectionKind::kRoot, kSectionRoot, parts.root, 0, parts.root_size, {}));
  TRY(writer.finish(key));
  return file.keep(!parts.program.empty());
}

namespace {

struct Rebase {
  const Container& from;
  const NewBase& base;
  RebaseReport report = {};

  // The new bytes of a section, or nothing when it stays.
  Result<std::optional<std::vector<u8>>> replacement(const Section& section) {
    const bool kernel = section.kind == SectionKind::kKernel;
    if (!kernel && section.kind != SectionKind::kInitramfs) return std::nullopt;
    if (kernel ? base.kernel.empty() : base.initramfs.empty()) return std::nullopt;
    std::vector<u8> bytes(base.initramfs.begin(), base.initramfs.end());
    if (kernel) {
      TRY_ASSIGN(bytes, base::read_file(base.kernel));
    }
    TRY_ASSIGN(const std::string before, from.read_section(section, kGiB));
    report.changes.push_back({.part = section.name,
                              .before = short_hex(digest_of(bytes_in(before))),
                              .after = short_hex(digest_of(bytes))});
    return std::optional(std::move(bytes));
  }

  Result<> copy(ContainerWriter& writer, const Section& section) {
    if (section.kind == SectionKind::kConfig && !base.kernel.empty()) {
      TRY_ASSIGN(const std::string text, from.read_section(section, PackedConfig::kMaxText));
      TRY_ASSIGN(PackedConfig config, PackedConfig::parse(text));
      config.extra[kExtraKernel] = base.kernel_kind;
      return writer.add_bytes(section.kind, section.name, bytes_in(config.to_json()), {});
    }
    TRY_ASSIGN(const auto bytes, replacement(section));
    if (!bytes) return writer.add_stored(from, section);
    return writer.add_bytes(section.kind, section.name, *bytes, {.zstd_level = kLevel});
  }

  Result<std::vector<u8>> program() {
    std::vector<u8> old(from.base());
    TRY(from.verify_program());
    TRY(base::read_exact_at(from.fd(), old, 0, from.name()));
    if (old.empty() || base.program.empty()) return old;
    TRY_ASSIGN(auto fresh, base::read_file(base.program));
    std::vector<u8> padded = fresh;
    padded.resize(base::align_up(fresh.size(), kPageSize));
    report.changes.push_back({.part = "runtime",
                              .before = short_hex(digest_of(old)),
                              .after = short_hex(digest_of(padded))});
    return fresh;
  }
};

}  // namespace

Result<RebaseReport> rebase_pack(const std::string& path, const NewBase& base,
                                 const SecretKey* key) {
  TRY_ASSIGN(const Container from, Container::open(path, {}));
  if (from.find(SectionKind::kKernel) == nullptr)
    return fail("{} has no kernel of its own (it was split): the shared folder is what to update",
                path);
  Rebase rebase{.from = from, .base = base};
  rebase.report.was_signed = from.signature().present;
  TRY_ASSIGN(NewFile file, NewFile::create(path));
  TRY_ASSIGN(const auto program, rebase.program());
  TRY_ASSIGN(const u64 start, put_program(file.fd(), path, program));
  TRY_ASSIGN(auto writer,
             ContainerWriter::create(
                 file.fd(), path, start,
                 {.created = from.created(), .key = {}, .key_source = from.key_source()}));
  for (const Section& section : from.sections()) TRY(rebase.copy(writer, section));
  TRY(writer.finish(key));
  struct stat status{};
  const bool executable = ::fstat(from.fd(), &status) == 0 && (status.st_mode & 0111) != 0;
  TRY(file.keep(executable));
  return rebase.report;
}

}  // namespace smol::image
