#include "image/oci/reference.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <span>

#include "base/bytes.h"
#include "base/fd.h"
#include "image/store/sha256.h"

namespace smol::image {
namespace {

constexpr std::size_t kLongestName = 255;
constexpr std::size_t kLongestTag = 128;
constexpr std::string_view kDefaultRegistry = "docker.io";

bool is_alphanumeric(char c) { return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9'); }

// Lower-case letters and digits; between them '.', '_', "__" or dashes.
bool is_component(std::string_view text) {
  if (text.empty() || !is_alphanumeric(text.front()) || !is_alphanumeric(text.back())) return false;
  for (std::size_t i = 0; i < text.size();) {
    if (is_alphanumeric(text[i])) {
      ++i;
      continue;
    }
    const std::size_t start = i;
    while (i < text.size() && text[i] == text[start]) ++i;
    const std::size_t run = i - start;
    const bool good =
        text[start] == '-' || (text[start] == '.' && run == 1) || (text[start] == '_' && run <= 2);
    if (!good || i == text.size() || !is_alphanumeric(text[i])) return false;
  }
  return true;
}

bool is_tag(std::string_view text) {
  if (text.empty() || text.size() > kLongestTag || text[0] == '.' || text[0] == '-') return false;
  return std::ranges::all_of(text, [](char c) {
    return is_alphanumeric(c) || (c >= 'A' && c <= 'Z') || c == '.' || c == '_' || c == '-';
  });
}

bool is_registry(std::string_view text) {
  if (text.starts_with('[')) {
    const std::size_t end = text.find(']');
    return end != std::string_view::npos && end > 1 &&
           std::ranges::all_of(text.substr(1, end - 1),
                               [](char c) { return is_alphanumeric(c) || c == ':' || c == '.'; }) &&
           (end + 1 == text.size() || (text[end + 1] == ':' && end + 2 < text.size() &&
                                       std::ranges::all_of(text.substr(end + 2), [](char c) {
                                         return c >= '0' && c <= '9';
                                       })));
  }
  const std::size_t colon = text.find(':');
  const std::string_view host = text.substr(0, colon);
  if (host.empty() || host.front() == '-' || host.front() == '.') return false;
  if (!std::ranges::all_of(host, [](char c) {
        return is_alphanumeric(c) || (c >= 'A' && c <= 'Z') || c == '.' || c == '-';
      }))
    return false;
  if (colon == std::string_view::npos) return true;
  const std::string_view port = text.substr(colon + 1);
  return !port.empty() && port.size() <= 5 &&
         std::ranges::all_of(port, [](char c) { return c >= '0' && c <= '9'; });
}

bool is_directory(const std::string& path) {
  struct stat status{};
  return ::stat(path.c_str(), &status) == 0 && S_ISDIR(status.st_mode);
}
bool is_file(const std::string& path) {
  struct stat status{};
  return ::stat(path.c_str(), &status) == 0 && !S_ISDIR(status.st_mode);
}

bool is_oci_directory(const std::string& path) { return is_file(path + "/oci-layout"); }

// A tar header's checksum: the sum of its bytes, its own eight counted as blanks (POSIX.1-1988,
// "ustar Interchange Format"); the first tars have nothing else to know them by.
bool is_tar_header(const std::array<u8, 512>& head) {
  constexpr std::size_t kBegin = 148, kEnd = 156;
  u32 sum = 0, written = 0;
  for (std::size_t i = 0; i < head.size(); ++i) sum += i >= kBegin && i < kEnd ? ' ' : head[i];
  std::size_t at = kBegin;
  while (at < kEnd && head[at] == ' ') ++at;
  const std::size_t first = at;
  for (; at < kEnd && head[at] >= '0' && head[at] <= '7'; ++at)
    written = written * 8 + head[at] - '0';
  return at > first && sum == written;
}

// gzip, zstd, xz, or a tar header.
bool looks_like_archive(const std::string& path) {
  auto fd = base::open_file(path, O_RDONLY | O_NONBLOCK);
  if (!fd) return true;  // the error comes when it is read
  std::array<u8, 512> head{};
  const ssize_t got = ::pread(fd->get(), head.data(), head.size(), 0);
  if (got < 4) return true;  // a pipe, or nothing: reading says what is wrong
  constexpr u32 kZstd = 0xfd2fb528;
  if (head[0] == 0x1f && head[1] == 0x8b) return true;
  if (base::load<u32>(head.data()) == kZstd) return true;
  constexpr u8 kXz[] = {0xfd, '7', 'z', 'X', 'Z'};
  if (std::ranges::equal(kXz, std::span(head).first(sizeof kXz))) return true;
  return std::string_view(reinterpret_cast<const char*>(head.data()) + 257, 5) == "ustar" ||
         (got == static_cast<ssize_t>(head.size()) && is_tar_header(head));
}

bool is_archive_name(std::string_view path) {
  const std::string_view name = path.substr(path.rfind('/') + 1);
  return name.ends_with(".tar") || name.ends_with(".tgz") || name.find(".tar.") != name.npos;
}

// "PATH:IMAGE" where PATH is there and the whole is not.
Source split_path(Source::Kind kind, const std::string& text,
                  bool (*is_there)(const std::string&)) {
  if (!is_there(text))
    for (std::size_t colon = text.find(':'); colon != text.npos; colon = text.find(':', colon + 1))
      if (const std::string path = text.substr(0, colon); is_there(path))
        return {kind, path, text.substr(colon + 1)};
  return {kind, text};
}

Source path_source_of(const std::string& path) {
  if (::access(path.c_str(), F_OK) != 0) {
    Source archive = split_path(Source::Kind::kArchive, path, is_file);
    if (!archive.image.empty() && looks_like_archive(archive.text)) return archive;
    Source layout = split_path(Source::Kind::kOciDirectory, path, is_oci_directory);
    if (!layout.image.empty()) return layout;
  }
  if (is_directory(path))
    return {is_oci_directory(path) ? Source::Kind::kOciDirectory : Source::Kind::kDirectory, path};
  if (!is_file(path) || looks_like_archive(path)) return {Source::Kind::kArchive, path};
  return {Source::Kind::kFile, path};
}

}  // namespace

std::string Reference::canonical() const {
  std::string text = registry + "/" + repository;
  if (!tag.empty()) text += ":" + tag;
  if (!digest.empty()) text += "@" + digest;
  return text;
}

Result<Reference> parse_reference(std::string_view text) {
  const std::string whole(text);
  if (text.empty()) return fail("an empty image reference");
  Reference reference;
  if (const std::size_t at = text.find('@'); at != std::string_view::npos) {
    reference.digest = std::string(text.substr(at + 1));
    if (!is_digest(reference.digest))
      return fail("image '{}': '{}' is no sha256 digest", whole, reference.digest);
    text = text.substr(0, at);
  }
  const std::size_t slash = text.find('/');
  const std::string_view first = text.substr(0, slash);
  if (slash != std::string_view::npos &&
      (first.find_first_of(".:[") != std::string_view::npos || first == "localhost")) {
    if (!is_registry(first)) return fail("image '{}': '{}' is no registry", whole, first);
    reference.registry = std::string(first);
    text.remove_prefix(slash + 1);
  } else {
    reference.registry = std::string(kDefaultRegistry);
  }
  if (reference.registry == "index.docker.io") reference.registry = std::string(kDefaultRegistry);
  if (const std::size_t colon = text.rfind(':'); colon != std::string_view::npos) {
    reference.tag = std::string(text.substr(colon + 1));
    if (!is_tag(reference.tag)) return fail("image '{}': '{}' is no tag", whole, reference.tag);
    text = text.substr(0, colon);
  } else if (reference.digest.empty()) {
    reference.tag = "latest";
  }
  reference.repository = std::string(text);
  if (text.size() > kLongestName) return fail("image '{}': the name is too long", whole);
  for (std::string_view rest = text;;) {
    const std::size_t end = rest.find('/');
    if (!is_component(rest.substr(0, end)))
      return fail(
          "image '{}': '{}' is no repository name (lower-case letters, digits, and '.', '_', '-' "
          "between them)",
          whole, text);
    if (end == std::string_view::npos) break;
    rest.remove_prefix(end + 1);
  }
  if (reference.registry == kDefaultRegistry && text.find('/') == std::string_view::npos)
    reference.repository = "library/" + reference.repository;
  return reference;
}

Source classify_source(const std::string& text) {
  if (text == "-") return {Source::Kind::kStandardInput, ""};
  constexpr std::pair<std::string_view, Source::Kind> kPrefixes[] = {
      {"docker://", Source::Kind::kRegistry},   {"docker-archive:", Source::Kind::kArchive},
      {"oci-archive:", Source::Kind::kArchive}, {"oci:", Source::Kind::kOciDirectory},
      {"dir:", Source::Kind::kDirectory},
  };
  for (const auto& [prefix, kind] : kPrefixes) {
    if (!text.starts_with(prefix)) continue;
    const std::string rest = text.substr(prefix.size());
    Source source{kind, rest};
    if (kind == Source::Kind::kArchive) source = split_path(kind, rest, is_file);
    if (kind == Source::Kind::kOciDirectory) source = split_path(kind, rest, is_directory);
    source.images_only = true;
    return source;
  }
  if (text.starts_with('/') || text.starts_with("./") || text.starts_with("../") || text == "." ||
      text == "..")
    return path_source_of(text);
  if (is_directory(text) && (is_oci_directory(text) || !parse_reference(text)))
    return path_source_of(text);
  if (is_file(text)) return path_source_of(text);
  // "app.tar:name"; but "app:1" stays a reference where a file is called "app".
  if (Source named = split_path(Source::Kind::kArchive, text, is_file);
      !named.image.empty() && is_archive_name(named.text))
    return named;
  return {Source::Kind::kRegistry, text};
}

}  // namespace smol::image
