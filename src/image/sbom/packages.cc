#include "image/sbom/packages.h"

#include <elf.h>

#include <algorithm>
#include <map>

#include "image/sbom/rpm.h"

namespace smol::image {

namespace {

constexpr u64 kMaxRecord = 64 * kMiB;
constexpr u64 kMaxRpm = 256 * kMiB;
constexpr u64 kMaxInfo = 4 * kMiB;

std::string_view next_line(std::string_view& text) {
  const std::size_t end = text.find('\n');
  const std::string_view line = text.substr(0, end);
  text.remove_prefix(end == text.npos ? text.size() : end + 1);
  return line;
}

std::string purl(std::string_view type, std::string_view distribution, std::string_view name,
                 std::string_view version, std::string_view arch) {
  return fmt::format("pkg:{}/{}/{}@{}{}{}", type, purl_escape(distribution), purl_escape(name),
                     purl_escape(version), arch.empty() ? "" : "?arch=", purl_escape(arch));
}

std::string os_release(const Tree& root, std::string_view key) {
  for (const char* const path : {"/etc/os-release", "/usr/lib/os-release"}) {
    const auto text = root.read_file(path, kMiB);
    if (!text) continue;
    for (std::string_view rest = *text; !rest.empty();) {
      std::string_view line = next_line(rest);
      if (!line.starts_with(key) || line.substr(key.size(), 1) != "=") continue;
      line.remove_prefix(key.size() + 1);
      if (line.size() >= 2 && (line[0] == '"' || line[0] == '\'') && line.back() == line[0])
        line = line.substr(1, line.size() - 2);
      return std::string(line);
    }
  }
  return "";
}

// Little-endian base-128, as Go writes lengths.
bool take_length(ConstByteSpan& bytes, u64& length) {
  length = 0;
  for (unsigned shift = 0; shift < 35 && !bytes.empty(); shift += 7) {
    const u8 byte = bytes[0];
    bytes = bytes.subspan(1);
    length |= u64{byte & 0x7fu} << shift;
    if ((byte & 0x80) == 0) return true;
  }
  return false;
}

bool take_text(ConstByteSpan& bytes, std::string_view& text) {
  u64 length = 0;
  if (!take_length(bytes, length) || length > bytes.size()) return false;
  text = {reinterpret_cast<const char*>(bytes.data()), static_cast<std::size_t>(length)};
  bytes = bytes.subspan(length);
  return true;
}

std::vector<std::string_view> fields(std::string_view line) {
  std::vector<std::string_view> out;
  for (;;) {
    const std::size_t tab = line.find('\t');
    out.push_back(line.substr(0, tab));
    if (tab == line.npos) return out;
    line.remove_prefix(tab + 1);
  }
}

template <class T>
bool read_as(const Tree& tree, NodeId file, u64 offset, T& into) {
  const u64 size = tree.node(file).size;
  return offset <= size && sizeof(T) <= size - offset &&
         tree.read_at(file, offset, base::bytes_of(into)).has_value();
}

// The program's section .go.buildinfo; empty if it has none.
std::vector<u8> go_section(const Tree& tree, NodeId file) {
  Elf64_Ehdr header;
  if (!read_as(tree, file, 0, header) || std::memcmp(header.e_ident, ELFMAG, SELFMAG) != 0 ||
      header.e_ident[EI_CLASS] != ELFCLASS64 || header.e_shentsize != sizeof(Elf64_Shdr) ||
      header.e_shnum > 4096)
    return {};
  Elf64_Shdr names;
  if (!read_as(tree, file, header.e_shoff + u64{header.e_shstrndx} * sizeof(names), names))
    return {};
  for (unsigned i = 0; i < header.e_shnum; ++i) {
    Elf64_Shdr section;
    char name[14];
    if (!read_as(tree, file, header.e_shoff + i * sizeof(section), section) ||
        !read_as(tree, file, names.sh_offset + section.sh_name, name) ||
        std::memcmp(name, ".go.buildinfo", 14) != 0)
      continue;
    const u64 size = tree.node(file).size;
    if (section.sh_size > kMaxInfo || section.sh_offset > size ||
        section.sh_size > size - section.sh_offset)
      return {};
    std::vector<u8> bytes(section.sh_size);
    if (!tree.read_at(file, section.sh_offset, bytes)) return {};
    return bytes;
  }
  return {};
}

Result<> find_go(const Tree& root, std::vector<Package>& packages) {
  return root.walk([&](const std::string& path, NodeId id) -> Result<> {
    const Node& node = root.node(id);
    if (node.kind != NodeKind::kFile || (node.mode & 0111) == 0 || node.size < sizeof(Elf64_Ehdr))
      return {};
    const std::vector<u8> info = go_section(root, id);
    if (info.empty()) return {};
    const auto found = parse_go(info, path);
    packages.insert(packages.end(), found.begin(), found.end());
    return {};
  });
}

// rpm's database has been in either folder, and had three forms; SQLite's is the one since 4.16.
void find_rpm(const Tree& root, FoundPackages& found) {
  for (const std::string folder : {"/var/lib/rpm/", "/usr/lib/sysimage/rpm/"}) {
    for (const char* const old : {"Packages", "Packages.db"})
      if (root.find(folder + old))
        found.notes.push_back(fmt::format(
            "{}{}: an rpm database in an old form; its packages are not listed", folder, old));
    const std::string path = folder + "rpmdb.sqlite";
    if (!root.find(path)) continue;
    auto text = root.read_file(path, kMaxRpm);
    const auto packages = text ? parse_rpm(std::move(*text), found.distribution, path)
                               : Result<std::vector<Package>>(std::unexpected(text.error()));
    if (!packages) {
      found.notes.push_back(fmt::format("{}: not read: {}", path, packages.error().chain()));
      continue;
    }
    found.packages.insert(found.packages.end(), packages->begin(), packages->end());
    const auto log = root.find(path + "-wal");
    if (log && root.node(*log).size != 0)
      found.notes.push_back(
          fmt::format("{}: has a log besides; what was changed last may be missing", path));
  }
}

}  // namespace

std::string purl_escape(std::string_view text) {
  std::string out;
  for (const char c : text) {
    const bool plain = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
                       c == '.' || c == '-' || c == '_' || c == '~' || c == ':';
    out += plain ? std::string(1, c)
                 : fmt::format("%{:02X}", static_cast<unsigned>(static_cast<u8>(c)));
  }
  return out;
}

std::vector<Package> parse_dpkg(std::string_view text, std::string_view distribution,
                                std::string_view found_in) {
  std::vector<Package> packages;
  std::map<std::string_view, std::string_view> fields;
  const auto end_of_paragraph = [&] {
    const std::string_view status = fields["Status"];
    const std::string_view name = fields["Package"];
    const std::string_view version = fields["Version"];
    // distroless' status.d has no Status at all.
    if (!name.empty() && !version.empty() && (status.empty() || status.ends_with(" installed")))
      packages.push_back({std::string(name), std::string(version),
                          purl("deb", distribution.empty() ? "debian" : distribution, name, version,
                               fields["Architecture"]),
                          "", std::string(found_in)});
    fields.clear();
  };
  while (!text.empty()) {
    const std::string_view line = next_line(text);
    if (line.empty()) {
      end_of_paragraph();
      continue;
    }
    const std::size_t colon = line.find(": ");
    if (line[0] == ' ' || line[0] == '\t' || colon == line.npos) continue;
    fields.emplace(line.substr(0, colon), line.substr(colon + 2));
  }
  end_of_paragraph();
  return packages;
}

std::vector<Package> parse_apk(std::string_view text, std::string_view distribution,
                               std::string_view found_in) {
  std::vector<Package> packages;
  std::map<char, std::string_view> fields;
  const auto end_of_paragraph = [&] {
    if (!fields['P'].empty() && !fields['V'].empty())
      packages.push_back({std::string(fields['P']), std::string(fields['V']),
                          purl("apk", distribution.empty() ? "alpine" : distribution, fields['P'],
                               fields['V'], fields['A']),
                          std::string(fields['L']), std::string(found_in)});
    fields.clear();
  };
  while (!text.empty()) {
    const std::string_view line = next_line(text);
    if (line.empty())
      end_of_paragraph();
    else if (line.size() > 2 && line[1] == ':')
      fields.emplace(line[0], line.substr(2));
  }
  end_of_paragraph();
  return packages;
}

std::vector<Package> parse_go(ConstByteSpan info, std::string_view found_in) {
  static constexpr std::string_view kMagic = "\xff Go buildinf:";
  constexpr std::size_t kHeader = 32;
  constexpr u8 kInline = 2;
  constexpr std::size_t kGuard = 16;  // around the module text
  if (info.size() < kHeader || std::memcmp(info.data(), kMagic.data(), kMagic.size()) != 0 ||
      (info[15] & kInline) == 0)
    return {};
  ConstByteSpan rest = info.subspan(kHeader);
  std::string_view version, modules;
  if (!take_text(rest, version)) return {};
  std::vector<Package> packages;
  const auto add = [&](std::string_view name, std::string_view number) {
    if (!name.empty())
      packages.push_back({std::string(name), std::string(number),
                          fmt::format("pkg:golang/{}@{}", name, purl_escape(number)), "",
                          std::string(found_in)});
  };
  add("stdlib", version.starts_with("go") ? version.substr(2) : version);
  if (!take_text(rest, modules) || modules.size() < 2 * kGuard) return packages;
  modules = modules.substr(kGuard, modules.size() - 2 * kGuard);
  while (!modules.empty()) {
    const auto words = fields(next_line(modules));
    if (words.size() >= 3 && (words[0] == "mod" || words[0] == "dep")) add(words[1], words[2]);
    if (words.size() >= 3 && words[0] == "=>" &&
        packages.size() > 1) {  // replaces the one before it
      packages.pop_back();
      add(words[1], words[2]);
    }
  }
  return packages;
}

Result<FoundPackages> find_packages(const Tree& root) {
  FoundPackages found;
  found.distribution = os_release(root, "ID");
  found.distribution_version = os_release(root, "VERSION_ID");
  const auto read = [&](const std::string& path, auto parse) {
    if (!root.find(path)) return;
    const auto text = root.read_file(path, kMaxRecord);
    if (!text) {
      found.notes.push_back(fmt::format("{}: not read: {}", path, text.error().chain()));
      return;
    }
    const auto packages = parse(*text, found.distribution, path);
    found.packages.insert(found.packages.end(), packages.begin(), packages.end());
  };
  read("/var/lib/dpkg/status", parse_dpkg);
  if (const auto folder = root.find("/var/lib/dpkg/status.d");
      folder && root.node(*folder).is_directory())
    for (const auto& [name, entry] : root.node(*folder).children)
      if (!name.ends_with(".md5sums")) read("/var/lib/dpkg/status.d/" + name, parse_dpkg);
  read("/lib/apk/db/installed", parse_apk);
  read("/usr/lib/apk/db/installed", parse_apk);
  find_rpm(root, found);
  TRY(find_go(root, found.packages));
  std::ranges::sort(found.packages);
  const auto twice = std::ranges::unique(found.packages);
  found.packages.erase(twice.begin(), twice.end());
  return found;
}

}  // namespace smol::image
