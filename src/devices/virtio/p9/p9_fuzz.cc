// The 9P device's ring under a hostile driver; src/share/server_fuzz.cc is for what the messages
// say.
#include <stdlib.h>

#include <filesystem>

#include "base/check.h"
#include "devices/virtio/p9/p9.h"
#include "devices/virtio/queue/fuzz_device.h"

namespace {

struct Folder {
  Folder() {
    std::string pattern = (std::filesystem::temp_directory_path() / "p9-fuzz.XXXXXX").string();
    CHECK(::mkdtemp(pattern.data()) != nullptr);
    path = pattern;
  }
  ~Folder() { std::filesystem::remove_all(path); }
  std::string path;
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace smol::devices::virtio;
  static Folder folder;
  static auto device = [] {
    auto server = std::move(*smol::share::Server::create(100));
    CHECK(server->add({.tag = "s", .path = folder.path}));
    auto device = std::move(*P9::create(std::move(server), "smol"));
    device->start();
    return device;
  }();
  static testing::FakeHost host(*device);
  testing::FuzzInput input(data, size);
  host.reset();
  host.activate((kFeatureEventIndex | kFeatureIndirectDescriptors) & input.take<smol::u64>());
  while (!input.done()) testing::fuzz_step(*device, host, input, 1);
  return 0;
}
