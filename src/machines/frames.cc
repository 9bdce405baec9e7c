#include "machines/frames.h"

#include <cstring>

#include "guest/protocol/protocol.h"

namespace smol::machines {
namespace {

constexpr u32 kUnknown = ~u32{0};

u32 limit_of(u16 type) {
  switch (type) {
    case SMOL_FRAME_STDOUT:
    case SMOL_FRAME_STDERR:
    case SMOL_FRAME_DATA:
      return SMOL_MAX_DATA;
    case SMOL_FRAME_HELLO:
    case SMOL_FRAME_STDIN_TAKEN:
    case SMOL_FRAME_STARTED:
    case SMOL_FRAME_EXIT:
    case SMOL_FRAME_READY:
    case SMOL_FRAME_DATA_END:
    case SMOL_FRAME_PROBLEM:
    case SMOL_FRAME_DONE:
    case SMOL_FRAME_STATS:
    case SMOL_FRAME_MAIN_EXIT:
      return SMOL_MAX_OTHER;
    default:
      return kUnknown;
  }
}

bool known_from_guest(u16 type) { return limit_of(type) != kUnknown; }

}  // namespace

ByteSpan FrameReader::room() {
  if (begin_ > 0) {
    std::memmove(buffer_.get(), buffer_.get() + begin_, end_ - begin_);
    end_ -= begin_;
    begin_ = 0;
  }
  return {buffer_.get() + end_, kRoom - end_};
}

Result<bool> FrameReader::next(Frame& frame) {
  if (end_ - begin_ < SMOL_FRAME_HEADER_SIZE) return false;
  const auto header = base::load<smol_frame_header>(buffer_.get() + begin_);
  if (!known_from_guest(header.type))
    return fail("the guest sent a frame of the unknown type {}", header.type);
  if (header.flags != 0)
    return fail("the guest sent a frame with the unknown flags {:#x}", header.flags);
  if (header.length > limit_of(header.type))
    return fail("the guest sent a frame of type {} with {} bytes, {} are allowed", header.type,
                header.length, limit_of(header.type));
  if (end_ - begin_ < SMOL_FRAME_HEADER_SIZE + header.length) return false;
  frame = {header.type, {buffer_.get() + begin_ + SMOL_FRAME_HEADER_SIZE, header.length}};
  begin_ += SMOL_FRAME_HEADER_SIZE + header.length;
  return true;
}

std::size_t FrameReader::missing() const {
  const std::size_t there = end_ - begin_;
  if (there < SMOL_FRAME_HEADER_SIZE) return SMOL_FRAME_HEADER_SIZE - there;
  const std::size_t whole =
      SMOL_FRAME_HEADER_SIZE +
      std::size_t{base::load<smol_frame_header>(buffer_.get() + begin_).length};
  return whole > there ? whole - there : 0;
}

void append_frame(std::vector<u8>& out, u16 type, ConstByteSpan payload) {
  const smol_frame_header header{static_cast<u32>(payload.size()), type, 0};
  const ConstByteSpan head = base::bytes_of(header);
  out.insert(out.end(), head.begin(), head.end());
  out.insert(out.end(), payload.begin(), payload.end());
}

Result<std::vector<u8>> encode_config(const RunConfig& config) {
  if (config.arguments.empty()) return fail("no command to run");
  if (config.arguments.size() + config.environment.size() > SMOL_MAX_STRINGS)
    return fail("{} arguments and environment entries, {} are allowed",
                config.arguments.size() + config.environment.size(),
                static_cast<u32>(SMOL_MAX_STRINGS));
  smol_config_head head{};
  head.version = SMOL_PROTOCOL_VERSION;
  head.flags = (config.tty ? SMOL_CONFIG_TTY : 0u) |
               (config.standard_input ? SMOL_CONFIG_STDIN : 0u) |
               (config.detached ? SMOL_CONFIG_DETACHED : 0u);
  head.argc = static_cast<u32>(config.arguments.size());
  head.envc = static_cast<u32>(config.environment.size());
  head.timeout_ms = config.timeout_ms;
  head.window = {config.rows, config.columns};
  const ConstByteSpan bytes = base::bytes_of(head);
  std::vector<u8> out(bytes.begin(), bytes.end());
  std::vector<const std::string*> strings = {&config.directory, &config.user, &config.log};
  for (const auto& argument : config.arguments) strings.push_back(&argument);
  for (const auto& entry : config.environment) strings.push_back(&entry);
  for (const std::string* const text : strings) {
    if (text->find('\0') != std::string::npos)
      return fail("a command word or setting holds a zero byte");
    out.insert(out.end(), text->begin(), text->end());
    out.push_back(0);
  }
  if (out.size() > SMOL_MAX_CONFIG)
    return fail("command and environment take {} bytes, {} are allowed", out.size(),
                static_cast<u32>(SMOL_MAX_CONFIG));
  return out;
}

Result<> check_hello(ConstByteSpan payload) {
  if (payload.size() != sizeof(smol_hello)) return fail("the guest's hello has a wrong size");
  const auto hello = base::load<smol_hello>(payload.data());
  if (hello.version != SMOL_PROTOCOL_VERSION)
    return fail("the guest's init speaks version {} of the protocol, {} is needed", hello.version,
                SMOL_PROTOCOL_VERSION);
  return {};
}

}  // namespace smol::machines
