#include "image/tree/cpio_source.h"

#include <sys/stat.h>

#include <algorithm>
#include <charconv>

namespace smol::image {
namespace {

constexpr u64 kHeader = 110;

struct Item {
  std::string_view name = {}, data = {};
  u32 mode = 0, time = 0;
};

class CpioReader {
 public:
  explicit CpioReader(ConstByteSpan archive)
      : text_(reinterpret_cast<const char*>(archive.data()), archive.size()) {}

  Result<Item> next() {
    TRY_ASSIGN(const std::string_view header, take(kHeader));
    if (!header.starts_with("070701")) return fail("this is no newc archive");
    u32 fields[13];
    for (u32 i = 0; i < 13; ++i) {
      const char* const from = header.data() + 6 + i * 8;
      const auto [end, error] = std::from_chars(from, from + 8, fields[i], 16);
      if (error != std::errc() || end != from + 8)
        return fail("a header of the archive is damaged");
    }
    Item item{.mode = fields[1], .time = fields[5]};
    TRY_ASSIGN(item.name, take(fields[11]));
    item.name = item.name.substr(0, item.name.find('\0'));
    at_ = base::align_up(at_, 4);
    TRY_ASSIGN(item.data, take(fields[6]));
    at_ = base::align_up(at_, 4);
    return item;
  }

 private:
  Result<std::string_view> take(u64 size) {
    if (at_ > text_.size() || size > text_.size() - at_)
      return fail("the archive ends in the middle");
    const std::string_view taken = text_.substr(at_, size);
    at_ += size;
    return taken;
  }

  const std::string_view text_;
  u64 at_ = 0;
};

}  // namespace

Result<> add_cpio(Tree& tree, ConstByteSpan archive,
                  const std::function<bool(std::string_view path)>& wanted) {
  CpioReader reader(archive);
  for (;;) {
    TRY_ASSIGN(const Item item, reader.next());
    if (item.name == "TRAILER!!!") return {};
    if (!wanted(item.name)) continue;
    Attributes attributes{.mode = static_cast<u16>(item.mode & 07777), .mtime = {item.time, 0}};
    if (S_ISDIR(item.mode)) {
      TRY(tree.add_directory(item.name, std::move(attributes)));
    } else if (S_ISLNK(item.mode)) {
      TRY(tree.add_symlink(item.name, std::string(item.data), std::move(attributes)));
    } else if (S_ISREG(item.mode)) {
      TRY(tree.add_file(item.name, std::string(item.data), std::move(attributes)));
    } else {
      return fail("{}: of a kind that is not read here", item.name);
    }
  }
}

}  // namespace smol::image
