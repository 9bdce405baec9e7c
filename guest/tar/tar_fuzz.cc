// Archives from an enemy: unpacking must neither die nor touch anything outside its folder.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <iterator>
#include <string>
#include <vector>

#include "guest/tar/tar.h"

namespace {

struct Stream {
  const std::uint8_t* data;
  std::size_t size;
};

ssize_t read_stream(void* context, void* buffer, std::size_t size) {
  auto* const stream = static_cast<Stream*>(context);
  const std::size_t chunk = std::min(size, stream->size);
  if (chunk == 0) return 0;
  std::memcpy(buffer, stream->data, chunk);
  stream->data += chunk;
  stream->size -= chunk;
  return static_cast<ssize_t>(chunk);
}

void ignore_problem(void*, const char* path, int, const char* what) {
  if (path == nullptr || what == nullptr) std::abort();
}

// Folders of this process, removed at its end.
struct Ground {
  std::string base;
  Ground() {
    // In memory where there is such a place: thousands of small trees are made and removed.
    base = ::access("/dev/shm", W_OK) == 0 ? "/dev/shm/tar-fuzz-XXXXXX" : "/tmp/tar-fuzz-XXXXXX";
    if (::mkdtemp(base.data()) == nullptr) std::abort();
    std::filesystem::create_directories(base + "/in");
    std::filesystem::create_directories(base + "/out");
    std::FILE* const canary = std::fopen((base + "/out/canary").c_str(), "w");
    std::fputs("alive", canary);
    std::fclose(canary);
  }
  ~Ground() { std::filesystem::remove_all(base); }
};

// Generated headers never have a right checksum: every block that could be one gets it.
void mend(std::vector<std::uint8_t>& bytes) {
  for (std::size_t at = 0; at + TAR_BLOCK <= bytes.size(); at += TAR_BLOCK) {
    tar_header header;
    std::memcpy(&header, bytes.data() + at, sizeof header);
    if (bytes[at] == 0 || (bytes[at] & 1) == 0) continue;
    static const char kinds[] = "0125xLK67";
    header.type = kinds[static_cast<unsigned char>(header.type) % (sizeof kinds - 1)];
    for (char* field : {header.mode, header.uid, header.gid}) tar_set_number(field, 8, 0644);
    tar_set_number(header.mtime, 12, 1);
    tar_set_number(header.size, 12, static_cast<unsigned char>(header.size[0]) * 7);
    std::snprintf(header.checksum, sizeof header.checksum, "%06o", tar_checksum(&header));
    header.checksum[7] = ' ';
    std::memcpy(bytes.data() + at, &header, sizeof header);
  }
}

// Sound archives of unsound members: every few bytes choose a kind, a name, a target and data.
std::vector<std::uint8_t> compose(const std::uint8_t* data, std::size_t size) {
  static const char* const names[] = {
      "a",  "b",      "a/b",     "b/c",  "../out/canary", "escape/canary", "escape",    "/a", ".",
      "..", "a/../b", "./a//b/", "link", "link/x",        "link/canary",   "a/b/c/d/e", ""};
  static const char* const targets[] = {"a",  "../out", "../out/canary", "/etc", "escape/canary",
                                        "..", "b/c",    "link",          ""};
  static const char* const records[] = {
      "14 path=pax/x\n",
      "17 path=../out/x\n",
      "31 SCHILY.xattr.user.k=abcdefg\n",
      "22 GNU.sparse.major=1\n22 GNU.sparse.minor=0\n27 GNU.sparse.realsize=100\n",
      "20 mtime=-1.0000005\n",
      "12 size=700\n",
      "10 uid=-1\n",
      "22 linkpath=../../out\n"};
  static const char kinds[] = "001235xxg6LK?";
  std::vector<std::uint8_t> out;
  for (std::size_t at = 0; at + 5 <= size && out.size() < 60000; at += 5) {
    tar_header header{};
    header.type = kinds[data[at] % (sizeof kinds - 1)];
    std::strcpy(header.name, names[data[at + 1] % std::size(names)]);
    std::strcpy(header.link, targets[data[at + 2] % std::size(targets)]);
    std::string body(data[at + 3] * 5u, '5');
    if (header.type == 'x') body = records[data[at + 4] % std::size(records)];
    if (header.type == 'L' || header.type == 'K')
      body = std::string(names[data[at + 4] % std::size(names)]) + '\0';
    if (header.type == '0' && (data[at + 4] & 1) != 0) body = "2\n0\n5\n90\n10\n" + body;
    for (char* field : {header.mode, header.uid, header.gid})
      tar_set_number(field, 8, data[at + 4]);
    tar_set_number(header.size, 12, static_cast<std::int64_t>(body.size()));
    std::memcpy(header.magic, "ustar", 6);
    std::snprintf(header.checksum, sizeof header.checksum, "%06o", tar_checksum(&header));
    const auto* const bytes = reinterpret_cast<const std::uint8_t*>(&header);
    out.insert(out.end(), bytes, bytes + sizeof header);
    out.insert(out.end(), body.begin(), body.end());
    out.resize((out.size() + TAR_BLOCK - 1) / TAR_BLOCK * TAR_BLOCK);
  }
  return out;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Ground ground;
  static unsigned count = 0;
  std::vector<std::uint8_t> bytes(data, data + size);
  if (size > 0 && (data[0] & 3) == 1) mend(bytes);
  if (size > 0 && (data[0] & 3) > 1) bytes = compose(data, size);
  const std::string folder = ground.base + "/in/" + std::to_string(count++ % 16);
  std::filesystem::remove_all(folder);
  std::filesystem::create_directories(folder);
  std::filesystem::create_symlink("../../out", folder + "/escape");
  const int fd = ::open(folder.c_str(), O_PATH | O_DIRECTORY | O_CLOEXEC);
  Stream stream{bytes.data(), bytes.size()};
  const tar_unpack_options options{.folder = fd,
                                   .first_name = (size & 1) != 0 ? "renamed" : nullptr,
                                   .links_inside = (size & 2) != 0,
                                   .distrust = true,
                                   .keep_owners = false,
                                   .set_owner = false,
                                   .set_mode = false,
                                   .uid = 0,
                                   .gid = 0,
                                   .mode = 0,
                                   .read = read_stream,
                                   .problem = ignore_problem,
                                   .context = &stream};
  char why[200];
  if (!tar_unpack(&options, why) && why[0] == '\0') std::abort();
  ::close(fd);
  auto outside = std::filesystem::directory_iterator(ground.base + "/out");
  if (std::distance(begin(outside), end(outside)) != 1) std::abort();
  return 0;
}
