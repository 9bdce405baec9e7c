#include "image/capsule/pack.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>

#include "base/fd.h"

namespace smol::image {
namespace {

constexpr int kLevel = 19;  // packed once, carried for long
constexpr u64 kProgramWrite = 64 * kKiB;

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
  // Pages of one write become one folio of the page cache, and a fault maps a folio whole (Linux
  // 6.18, mm/filemap.c): in large ones an idle capsule would have most of its program mapped.
  for (u64 at = 0; at < program.size(); at += kProgramWrite)
    TRY(base::write_all_at(
        fd, program.subspan(at, std::min<u64>(kProgramWrite, program.size() - at)), at, path));
  if (::ftruncate(fd, static_cast<off_t>(base)) != 0) return fail_errno("cannot write {}", path);
  return base;
}

Result<std::vector<u8>> program_of(const PackParts& parts) {
  if (parts.program.empty()) return std::vector<u8>();
  if (!parts.split) return base::read_file(parts.program);
  const ConstByteSpan line = bytes_in(kSplitProgram);
  return std::vector<u8>(line.begin(), line.end());
}

// A container with nothing but this kernel, compressed; none where it is not what it must be.
std::optional<Container> cached_kernel(const std::string& path, ConstByteSpan kernel) {
  auto cached = Container::open(path, {});
  if (!cached) return std::nullopt;
  const Section* const section = cached->find(SectionKind::kKernel);
  if (section == nullptr || section->name != kSectionKernel || section->size != kernel.size())
    return std::nullopt;
  const auto bytes = cached->read_section(*section, kernel.size());
  if (!bytes || !std::ranges::equal(bytes_in(*bytes), kernel)) return std::nullopt;
  if (!section->compressed || section->encrypted || section->sparse) return std::nullopt;
  return std::move(*cached);
}

Result<> write_cached_kernel(const std::string& path, ConstByteSpan kernel) {
  TRY_ASSIGN(NewFile file, NewFile::create(path));
  TRY_ASSIGN(auto writer, ContainerWriter::create(file.fd(), path, 0,
                                                  {.created = 0, .key = {}, .key_source = {}}));
  TRY(writer.add_bytes(SectionKind::kKernel, kSectionKernel, kernel, {.zstd_level = kLevel}));
  TRY(writer.finish(nullptr));
  TRY(file.keep(false));
  return {};
}

// Compressing a kernel takes seconds, and most packs have the same one.
Result<> add_kernel(ContainerWriter& writer, ConstByteSpan kernel, const std::string& cache) {
  if (!cache.empty()) {
    const std::string path =
        fmt::format("{}/{}-z{}.smolmachine", cache, to_hex(digest_of(kernel)), kLevel);
    auto cached = cached_kernel(path, kernel);
    if (!cached && write_cached_kernel(path, kernel)) cached = cached_kernel(path, kernel);
    // A folder that cannot be written only costs time.
    if (cached) return writer.add_stored(*cached, *cached->find(SectionKind::kKernel));
  }
  return writer.add_bytes(SectionKind::kKernel, kSectionKernel, kernel, {.zstd_level = kLevel});
}

Result<> add_init(ContainerWriter& writer, ConstByteSpan initramfs) {
  return writer.add_bytes(SectionKind::kInitramfs, kSectionInit, initramfs, {.zstd_level = kLevel});
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
  if (!parts.split) {
    TRY(add_kernel(writer, kernel, parts.cache));
    TRY(add_init(writer, parts.initramfs));
  }
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

  // Kernel and init lie elsewhere: it has no section of them.
  bool split() const { return from.find(SectionKind::kKernel) == nullptr; }

  Result<> name_part(PackedConfig& config, const char* key, const char* part, ConstByteSpan bytes) {
    const auto old = config.extra.find(key);
    if (old == config.extra.end())
      return fail("{} has neither a section '{}' nor the digest of one", from.name(), part);
    const std::string digest = to_hex(digest_of(bytes));
    report.changes.push_back(
        {.part = part, .before = old->second.substr(0, 16), .after = digest.substr(0, 16)});
    old->second = digest;
    return {};
  }

  Result<std::string> new_config(const Section& section) {
    TRY_ASSIGN(const std::string text, from.read_section(section, PackedConfig::kMaxText));
    if (base.kernel.empty() && !split()) return text;
    TRY_ASSIGN(PackedConfig config, PackedConfig::parse(text));
    if (!base.kernel.empty()) config.extra[kExtraKernel] = base.kernel_kind;
    if (split() && !base.kernel.empty()) {
      TRY_ASSIGN(const auto kernel, base::read_file(base.kernel));
      TRY(name_part(config, kExtraKernelDigest, kSectionKernel, kernel));
    }
    if (split() && !base.initramfs.empty())
      TRY(name_part(config, kExtraInitDigest, kSectionInit, base.initramfs));
    return config.to_json();
  }

  Result<> copy(ContainerWriter& writer, const Section& section) {
    if (section.kind == SectionKind::kConfig) {
      TRY_ASSIGN(const std::string config, new_config(section));
      return writer.add_bytes(section.kind, section.name, bytes_in(config), {});
    }
    TRY_ASSIGN(const auto bytes, replacement(section));
    if (!bytes) return writer.add_stored(from, section);
    if (section.kind == SectionKind::kKernel && section.name == kSectionKernel)
      return add_kernel(writer, *bytes, base.cache);
    return writer.add_bytes(section.kind, section.name, *bytes, {.zstd_level = kLevel});
  }

  Result<std::vector<u8>> program() {
    std::vector<u8> old(from.base());
    TRY(from.verify_program());
    TRY(base::read_exact_at(from.fd(), old, 0, from.name()));
    // The line in front of a split one stays: the runtime is the installed one.
    if (old.empty() || base.program.empty() || split()) return old;
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
                                 const VerifyPolicy& policy, const SecretKey* key) {
  TRY_ASSIGN(const Container from, Container::open(path, policy));
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
