// For tests: a monitor's vsock socket with an agent behind it, whose words the test writes.
#pragma once

#include <gtest/gtest.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <functional>
#include <string>
#include <thread>

#include "base/unix_socket.h"
#include "guest/protocol/protocol.h"
#include "machines/conversation.h"

namespace smol::machines::testing {

class FakeAgent {
 public:
  // What the agent does with one connection, after the greeting.
  using Script = std::function<void(int fd)>;

  explicit FakeAgent(Script script, std::string greeting = "OK 1073741824\n") {
    char name[] = "/tmp/fake-agent-XXXXXX";
    folder_ = ::mkdtemp(name);
    path_ = folder_ + "/v.sock";
    auto listener = base::listen_unix(path_, 16);
    EXPECT_TRUE(listener.has_value());
    listener_ = std::move(*listener);
    thread_ = std::thread([this, script = std::move(script), greeting = std::move(greeting)] {
      for (;;) {
        base::UniqueFd peer(::accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC));
        if (!peer.valid()) return;
        std::string line;
        for (char byte = 0; byte != '\n' && ::recv(peer.get(), &byte, 1, 0) == 1;) line += byte;
        line_ = line;
        ::send(peer.get(), greeting.data(), greeting.size(), MSG_NOSIGNAL);
        script(peer.get());
      }
    });
  }
  ~FakeAgent() {
    ::shutdown(listener_.get(), SHUT_RDWR);
    thread_.join();
    std::filesystem::remove_all(folder_);
  }

  const std::string& path() const { return path_; }
  const std::string& line() const { return line_; }

  static void say(int fd, u16 type, ConstByteSpan payload = {}) {
    std::vector<u8> frame;
    append_frame(frame, type, payload);
    for (std::size_t at = 0; at < frame.size();) {
      const ssize_t put = ::send(fd, frame.data() + at, frame.size() - at, MSG_NOSIGNAL);
      if (put <= 0) return;
      at += static_cast<std::size_t>(put);
    }
  }
  static void say_hello(int fd, u32 version = SMOL_PROTOCOL_VERSION) {
    say(fd, SMOL_FRAME_HELLO, base::bytes_of(smol_hello{version, 0, 1}));
  }
  template <class Head>
  static void say_text(int fd, u16 type, const Head& head, std::string_view text) {
    std::vector<u8> payload(sizeof(Head));
    std::memcpy(payload.data(), &head, sizeof(Head));
    payload.insert(payload.end(), text.begin(), text.end());
    say(fd, type, payload);
  }
  // Type 0: the client has gone.
  static std::pair<u16, std::string> hear(int fd) {
    smol_frame_header header{};
    if (::recv(fd, &header, sizeof(header), MSG_WAITALL) != sizeof(header)) return {0, ""};
    std::string payload(header.length, '\0');
    if (header.length > 0 && ::recv(fd, payload.data(), header.length, MSG_WAITALL) !=
                                 static_cast<ssize_t>(header.length))
      return {0, ""};
    return {header.type, payload};
  }
  static void wait_for_close(int fd) {
    char byte[4096];
    while (::recv(fd, byte, sizeof(byte), 0) > 0) {
    }
  }

 private:
  std::string folder_, path_, line_;
  base::UniqueFd listener_;
  std::thread thread_;
};

}  // namespace smol::machines::testing
