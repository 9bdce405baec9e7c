#include "contents.h"

#include <fcntl.h>
#include <sys/auxv.h>

#include <algorithm>

namespace capsule {
namespace {

constexpr u64 kMaxPart = 1 * kGiB;
// A root up to this size is checked whole before the machine starts: 1 ms a MiB at most. A larger
// one is checked piece by piece, each before it is first read.
constexpr u64 kCheckedAtStart = 16 * kMiB;

Result<base::UniqueFd> open_program() {
  if (auto self = base::open_file("/proc/self/exe", O_RDONLY)) return self;
  const auto name = reinterpret_cast<const char*>(::getauxval(AT_EXECFN));
  if (name == nullptr) return fail("cannot find this program's own file");
  auto self = base::open_file(name, O_RDONLY);
  if (!self) return wrap(self.error(), "cannot open this program's own file");
  return self;
}

// What no start reads is checked all the same: a file with a wrong byte is refused, whichever it
// is.
Result<> check_unread(const image::Container& container) {
  for (const image::Section& section : container.sections())
    if (section.kind == image::SectionKind::kSbom && section.stored_size <= kCheckedAtStart)
      TRY(container.verify_section(section));
  return {};
}

}  // namespace

Result<Contents> Contents::open(base::UniqueFd file, const std::string& name) {
  Contents contents;
  TRY_ASSIGN(auto container, image::Container::open(std::move(file), name, {}));
  contents.container_.emplace(std::move(container));
  TRY(check_unread(*contents.container_));
  const image::Section* const config = contents.container_->find(image::SectionKind::kConfig);
  if (config == nullptr) return fail("{} has no section 'config'", name);
  TRY_ASSIGN(const std::string text,
             contents.container_->read_section(*config, image::PackedConfig::kMaxText));
  TRY_ASSIGN(contents.config_, image::PackedConfig::parse(text));
  return contents;
}

Result<Contents> Contents::open_self() {
  TRY_ASSIGN(auto file, open_program());
  return open(std::move(file), "this file");
}

Result<Contents> Contents::open_given(const Given& given) {
  TRY_ASSIGN(Contents contents, open(base::UniqueFd(given.container), given.name));
  contents.given_ = given;
  return contents;
}

bool Contents::has_root() const { return container_->find(image::SectionKind::kRoot) != nullptr; }

Result<std::string> Contents::read(image::SectionKind kind, int given, const char* what) const {
  if (given >= 0) {
    TRY_ASSIGN(const u64 size, base::file_size(given, what));
    std::string bytes(std::min(size, kMaxPart), 0);
    TRY(base::read_exact_at(given, {reinterpret_cast<u8*>(bytes.data()), bytes.size()}, 0, what));
    return bytes;
  }
  const image::Section* const section = container_->find(kind);
  if (section == nullptr)
    return fail("{} has no {}: it was split, and `smolvm pack run --from` runs it",
                container_->name(), what);
  return container_->read_section(*section, kMaxPart);
}

Result<std::string> Contents::kernel() const {
  return read(image::SectionKind::kKernel, given_.kernel, "kernel");
}

Result<std::string> Contents::initramfs() const {
  return read(image::SectionKind::kInitramfs, given_.init, "init");
}

Result<std::optional<storage::Window>> Contents::root(
    std::function<void(const Error&)> damaged) const {
  const image::Section* const section = container_->find(image::SectionKind::kRoot);
  if (section == nullptr) return std::nullopt;
  if (section->size <= kCheckedAtStart) TRY(container_->check_range(*section, 0, section->size));
  TRY_ASSIGN(const u64 offset, container_->file_offset(*section));
  const auto check = [this, section, damaged = std::move(damaged)](u64 at, u64 size) -> Result<> {
    auto checked = container_->check_range(*section, at, size);
    if (!checked && damaged) damaged(checked.error());
    return checked;
  };
  return storage::Window{.fd = container_->fd(),
                         .name = "the root of this capsule",
                         .offset = offset,
                         .size = section->size,
                         .check = check};
}

}  // namespace capsule
