// A hostile guest: sequences of requests with a valid shape and arbitrary content, and raw bytes.
// The share's directory may become anything; a canary beside it must not change, and what it links
// to must not be reached.
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <iterator>

#include "base/check.h"
#include "share/server.h"

namespace {

using namespace smol;
using namespace smol::share;
namespace fs = std::filesystem;

struct Fixture {
  fs::path outside, root;
  std::unique_ptr<Server> server;
  int inputs = 0;

  Fixture() {
    std::string pattern = (fs::temp_directory_path() / "share-fuzz.XXXXXX").string();
    CHECK(::mkdtemp(pattern.data()) != nullptr);
    outside = pattern;
    root = outside / "root";
    std::ofstream(outside / "canary") << "alive";
    ::umask(0);
  }
  ~Fixture() { fs::remove_all(outside); }
  void fresh() {
    server.reset();
    fs::remove_all(root);
    fs::create_directories(root / "d/e");
    std::ofstream(root / "f") << "content";
    fs::create_symlink("../canary", root / "out");
    fs::create_symlink("..", root / "up");
    server = std::move(*Server::create(200));
    CHECK(server->add({.tag = "s", .path = root.string()}));
  }
  void check() const {
    std::ifstream file(outside / "canary");
    CHECK(std::string(std::istreambuf_iterator<char>(file), {}) == "alive");
    struct stat status{};
    CHECK(::stat((outside / "canary").c_str(), &status) == 0 && status.st_nlink == 1);
    CHECK(std::distance(fs::directory_iterator(outside), fs::directory_iterator()) == 2);
  }
};

class Input {
 public:
  Input(const u8* data, std::size_t size) : rest_(data, size) {}
  bool done() const { return rest_.empty(); }
  u8 byte() {
    if (rest_.empty()) return 0;
    const u8 value = rest_[0];
    rest_ = rest_.subspan(1);
    return value;
  }

 private:
  ConstByteSpan rest_;
};

class Builder {
 public:
  explicit Builder(Input& input) : input_(input) {}
  template <class T>
  void put(T value) {
    const ConstByteSpan from = base::bytes_of(value);
    bytes.insert(bytes.end(), from.begin(), from.end());
  }
  void number(std::size_t size) {
    const u8 kind = input_.byte();
    for (std::size_t i = 0; i < size; ++i)
      put(kind < 200 ? static_cast<u8>(i == 0 ? input_.byte() : 0) : static_cast<u8>(kind << 1));
  }
  void fid() { put(u32{input_.byte()} % 5); }
  void name() {
    static constexpr std::string_view kNames[] = {
        "s",   "f",         "d",      "e", "out", "up", "..",   ".",      "",
        "a/b", "../canary", "canary", "x", "y",   "/",  "root", "user.x", "security.x"};
    std::string name(kNames[input_.byte() % std::size(kNames)]);
    if (input_.byte() == 255) name += std::string(300, 'n');
    put(static_cast<u16>(name.size()));
    bytes.insert(bytes.end(), name.begin(), name.end());
  }
  std::vector<u8> bytes = std::vector<u8>(kHeaderSize);

 private:
  Input& input_;
};

// Fields of each type: f fid, n name, 1/4/8 numbers.
struct Shape {
  Type type;
  const char* fields;
};
constexpr Shape kShapes[] = {
    {Type::kStatfs, "f"},      {Type::kLopen, "f4"},         {Type::kLcreate, "fn444"},
    {Type::kSymlink, "fnn4"},  {Type::kMknod, "fn4444"},     {Type::kRename, "ffn"},
    {Type::kReadlink, "f"},    {Type::kGetattr, "f8"},       {Type::kSetattr, "f444488888"},
    {Type::kXattrWalk, "ffn"}, {Type::kXattrCreate, "fn84"}, {Type::kReaddir, "f84"},
    {Type::kFsync, "f4"},      {Type::kLock, "f14884n"},     {Type::kGetLock, "f1884n"},
    {Type::kLink, "ffn"},      {Type::kMkdir, "fn44"},       {Type::kRenameAt, "fnfn"},
    {Type::kUnlinkAt, "fn4"},  {Type::kAttach, "f4nn4"},     {Type::kFlush, "1"},
    {Type::kRead, "f84"},      {Type::kWrite, "f84"},        {Type::kClunk, "f"},
    {Type::kRemove, "f"},      {Type::kVersion, "4n"},
};

std::vector<u8> build(Input& input) {
  Builder builder(input);
  const u8 choice = input.byte();
  Type type = Type::kWalk;
  if (choice < 60) {
    builder.fid();
    builder.fid();
    const u16 count = input.byte() % 4;
    builder.put(count);
    for (u16 i = 0; i < count; ++i) builder.name();
  } else {
    const Shape& shape = kShapes[choice % std::size(kShapes)];
    type = shape.type;
    for (const char* field = shape.fields; *field != 0; ++field) {
      if (*field == 'f')
        builder.fid();
      else if (*field == 'n')
        builder.name();
      else
        builder.number(static_cast<std::size_t>(*field - '0'));
    }
  }
  if (input.byte() == 254 && builder.bytes.size() > kHeaderSize) builder.bytes.pop_back();
  base::store(builder.bytes.data(), static_cast<u32>(builder.bytes.size()));
  builder.bytes[4] = input.byte() == 253 ? input.byte() : static_cast<u8>(type);
  return builder.bytes;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static Fixture fixture;
  if (fixture.inputs++ % 256 == 0) fixture.fresh();
  Input input(data, size);
  Server& server = *fixture.server;
  server.reset();
  std::vector<u8> buffer(4096);
  const iovec room{buffer.data(), buffer.size()};
  const auto serve = [&](ConstByteSpan message) {
    const Reply reply = server.serve(
        {.message = message, .data = {}},
        {.size = static_cast<u32>(buffer.size()) + kReadReplyHead, .data = {&room, 1}});
    CHECK(reply.head.size() + reply.data <= buffer.size() + kReadReplyHead);
  };
  if (size != 0 && data[0] == 0) {
    serve({data + 1, size - 1});
  } else {
    std::vector<u8> attach(kHeaderSize);
    for (const u8 field : {0, 0, 0, 0, 255, 255, 255, 255, 0, 0, 1, 0, int{'s'}, 0, 0, 0, 0})
      attach.push_back(field);
    base::store(attach.data(), static_cast<u32>(attach.size()));
    attach[4] = static_cast<u8>(Type::kAttach);
    serve(attach);
    for (int i = 0; i < 40 && !input.done(); ++i) serve(build(input));
  }
  if (fixture.inputs % 64 == 0) fixture.check();
  return 0;
}
