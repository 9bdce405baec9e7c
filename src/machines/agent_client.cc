#include "machines/agent_client.h"

#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/time.h"
#include "base/unix_socket.h"
#include "guest/protocol/protocol.h"
#include "machines/conversation.h"

namespace smol::machines {
namespace {

constexpr std::size_t kGreetingRoom = 32;
constexpr std::size_t kOutputKept = 64 * kKiB;

std::string text_behind(ConstByteSpan payload, std::size_t head) {
  return {reinterpret_cast<const char*>(payload.data()) + head, payload.size() - head};
}

// DONE, or an Error with the guest's words.
Result<> check_done(const Frame& frame) {
  if (frame.type != SMOL_FRAME_DONE || frame.payload.size() < sizeof(smol_done))
    return fail("the machine's agent answered with the unexpected frame {}", frame.type);
  const auto done = base::load<smol_done>(frame.payload.data());
  if (done.error == 0) return {};
  const std::string text = text_behind(frame.payload, sizeof(smol_done));
  return fail("{}", text.empty() ? "the machine's agent refused" : text);
}

Result<ProgramEnd> end_of(ConstByteSpan payload) {
  if (payload.size() < sizeof(smol_exit)) return fail("the guest's exit report has a wrong size");
  const auto report = base::load<smol_exit>(payload.data());
  return ProgramEnd{report.kind, report.value, text_behind(payload, sizeof(smol_exit)), "", ""};
}

void keep(std::string& text, ConstByteSpan bytes) {
  const std::size_t room = kOutputKept - std::min(kOutputKept, text.size());
  text.append(reinterpret_cast<const char*>(bytes.data()), std::min(room, bytes.size()));
}

// The monitor's answer to CONNECT: read byte by byte, since the guest's own bytes follow at once.
Result<> read_greeting(int fd, u64 patience_ns) {
  std::string line;
  const u64 deadline = base::monotonic_ns() + patience_ns;
  while (line.size() < kGreetingRoom) {
    const u64 now = base::monotonic_ns();
    if (now >= deadline)
      return fail("the machine's agent has not answered for {} ms", patience_ns / 1'000'000);
    pollfd ready{.fd = fd, .events = POLLIN, .revents = 0};
    if (::poll(&ready, 1, static_cast<int>((deadline - now) / 1'000'000 + 1)) <= 0) continue;
    char byte = 0;
    const ssize_t got = ::recv(fd, &byte, 1, MSG_DONTWAIT);
    if (got < 0 && (errno == EAGAIN || errno == EINTR)) continue;
    if (got <= 0)
      return fail(
          "the machine has no agent that listens (it is starting, ending, or runs another init)");
    if (byte == '\n')
      return line.starts_with("OK ") ? Result<>{} : fail("the monitor answered '{}'", line);
    line += byte;
  }
  return fail("the monitor's answer is no greeting");
}

}  // namespace

Result<base::UniqueFd> AgentClient::open() const {
  TRY_ASSIGN(base::UniqueFd fd, base::connect_unix(socket_));
  const std::string request = fmt::format("CONNECT {}\n", SMOL_AGENT_PORT);
  if (::send(fd.get(), request.data(), request.size(), MSG_NOSIGNAL) !=
      static_cast<ssize_t>(request.size()))
    return fail_errno("cannot ask the monitor at {}", socket_);
  TRY(read_greeting(fd.get(), patience_ns_));
  return fd;
}

Result<> AgentClient::ping() const {
  TRY(stats());
  return {};
}

Result<GuestStats> AgentClient::stats() const {
  TRY_ASSIGN(auto fd, open());
  Conversation agent(std::move(fd), patience_ns_);
  TRY(agent.send(SMOL_FRAME_STATS, {}));
  TRY_ASSIGN(const Frame frame, agent.next());
  if (frame.type != SMOL_FRAME_STATS) {
    TRY(check_done(frame));
    return fail("the machine's agent gave no figures");
  }
  if (frame.payload.size() < sizeof(smol_stats))
    return fail("the machine's agent gave too few figures");
  const auto wire = base::load<smol_stats>(frame.payload.data());
  const auto load = [](u64 value) { return static_cast<double>(value) / 1000; };
  return GuestStats{.uptime_ns = wire.uptime_ns,
                    .realtime_ns = wire.realtime_ns,
                    .memory_total = wire.memory_total,
                    .memory_free = wire.memory_free,
                    .memory_available = wire.memory_available,
                    .memory_cached = wire.memory_cached,
                    .swap_used = wire.swap_used,
                    .load_1 = load(wire.load_1),
                    .load_5 = load(wire.load_5),
                    .load_15 = load(wire.load_15),
                    .processes = wire.processes,
                    .processes_running = wire.processes_running,
                    .cpus = wire.cpus,
                    .cpu_busy_ns = wire.cpu_busy_ns,
                    .cpu_idle_ns = wire.cpu_idle_ns,
                    .root_total = wire.root_total,
                    .root_free = wire.root_free};
}

Result<> AgentClient::shutdown(u64 grace_ns, bool reboot) const {
  TRY_ASSIGN(auto fd, open());
  Conversation agent(std::move(fd), patience_ns_);
  const u64 grace_ms = std::min<u64>(grace_ns / 1'000'000, 10 * 60 * 1000);
  const smol_shutdown request{static_cast<u32>(grace_ms), reboot ? u32{SMOL_SHUTDOWN_REBOOT} : 0};
  TRY(agent.send(SMOL_FRAME_SHUTDOWN, base::bytes_of(request)));
  TRY_ASSIGN(const Frame frame, agent.next());
  return check_done(frame);
}

Result<> AgentClient::setup(Result<std::vector<u8>> payload) const {
  TRY(payload);
  TRY_ASSIGN(auto fd, open());
  Conversation agent(std::move(fd), patience_ns_);
  TRY(agent.send(SMOL_FRAME_SETUP, *payload));
  TRY_ASSIGN(const Frame frame, agent.next());
  return check_done(frame);
}

Result<> AgentClient::set_time(u64 ns_since_1970) const {
  return setup(encode_time(ns_since_1970));
}
Result<> AgentClient::mount(const GuestMount& mount) const { return setup(encode_mount(mount)); }
Result<> AgentClient::mount_disk(const GuestDisk& disk) const { return setup(encode_disk(disk)); }
Result<> AgentClient::unmount(const std::string& path) const { return setup(encode_unmount(path)); }
Result<> AgentClient::add_secret(const GuestSecret& secret) const {
  return setup(encode_secret(secret));
}
Result<> AgentClient::add_forward(const GuestForward& forward) const {
  return setup(encode_forward(forward));
}
Result<> AgentClient::add_network(const GuestNetwork& network) const {
  return setup(encode_network(network));
}

Result<u32> AgentClient::exec_detached(RunConfig program) const {
  program.detached = true;
  program.tty = program.standard_input = false;
  TRY_ASSIGN(const auto payload, encode_config(program));
  TRY_ASSIGN(auto fd, open());
  Conversation agent(std::move(fd), patience_ns_);
  TRY(agent.send(SMOL_FRAME_EXEC, payload));
  TRY_ASSIGN(const Frame frame, agent.next());
  if (frame.type == SMOL_FRAME_STARTED && frame.payload.size() == 4)
    return base::load<u32>(frame.payload.data());
  if (frame.type == SMOL_FRAME_EXIT) {
    TRY_ASSIGN(const ProgramEnd end, end_of(frame.payload));
    return fail("{}", end.text);
  }
  TRY(check_done(frame));
  return fail("the machine's agent did not tell the program's process id");
}

Result<ProgramEnd> AgentClient::run(RunConfig program, u64 timeout_ns) const {
  program.tty = program.standard_input = program.detached = false;
  if (timeout_ns != 0)
    program.timeout_ms = static_cast<u32>(std::clamp<u64>(timeout_ns / 1'000'000, 1, ~u32{0}));
  TRY_ASSIGN(const auto payload, encode_config(program));
  TRY_ASSIGN(auto fd, open());
  // A program may be silent as long as it runs; only with a timeout is silence beyond it a dead
  // agent.
  Conversation agent(std::move(fd), timeout_ns == 0 ? 0 : timeout_ns + patience_ns_);
  TRY(agent.send(SMOL_FRAME_EXEC, payload));
  std::string out, err;
  for (;;) {
    TRY_ASSIGN(const Frame frame, agent.next());
    switch (frame.type) {
      case SMOL_FRAME_STARTED:
        break;
      case SMOL_FRAME_STDOUT:
        keep(out, frame.payload);
        break;
      case SMOL_FRAME_STDERR:
        keep(err, frame.payload);
        break;
      case SMOL_FRAME_EXIT: {
        TRY_ASSIGN(ProgramEnd end, end_of(frame.payload));
        end.out = std::move(out);
        end.err = std::move(err);
        return end;
      }
      default:
        TRY(check_done(frame));
        return fail("the machine's agent ended without the program's end");
    }
  }
}

Result<base::UniqueFd> AgentClient::connect_unix(const std::string& guest_path) const {
  if (guest_path.empty() || guest_path.front() != '/' || guest_path.find('\0') != std::string::npos)
    return fail("'{}': a socket in the guest is a path that begins with '/'", guest_path);
  TRY_ASSIGN(auto fd, open());
  Conversation agent(std::move(fd), patience_ns_, Conversation::Reading::kByFrame);
  TRY(agent.send(SMOL_FRAME_CONNECT,
                 {reinterpret_cast<const u8*>(guest_path.c_str()), guest_path.size() + 1}));
  TRY_ASSIGN(const Frame frame, agent.next());
  TRY(check_done(frame));
  return agent.release();
}

Result<base::UniqueFd> listen_for_guest(const std::string& path) {
  if (!path.starts_with('@')) ::unlink(path.c_str());  // a start that was killed left it
  return base::listen_unix(path, 16);
}

namespace {

Result<base::UniqueFd> accept_guest(int listener, int monitor_pidfd, u64 timeout_ns) {
  const u64 deadline = base::monotonic_ns() + timeout_ns;
  for (;;) {
    const u64 now = base::monotonic_ns();
    if (now >= deadline)
      return fail("the machine's init has not answered for {} ms", timeout_ns / 1'000'000);
    pollfd fds[2] = {{.fd = listener, .events = POLLIN, .revents = 0},
                     {.fd = monitor_pidfd, .events = POLLIN, .revents = 0}};
    const int count =
        ::poll(fds, 2, static_cast<int>(std::min<u64>((deadline - now) / 1'000'000 + 1, 1u << 30)));
    if (count < 0 && errno != EINTR) return fail_errno("cannot wait for the machine's init");
    if (count <= 0) continue;
    if ((fds[0].revents & POLLIN) != 0) {
      base::UniqueFd peer(::accept4(listener, nullptr, nullptr, SOCK_CLOEXEC));
      // An abstract name is open to all users of the host: only our own monitor is told the setup.
      ucred who{};
      socklen_t size = sizeof(who);
      if (peer.valid() && ::getsockopt(peer.get(), SOL_SOCKET, SO_PEERCRED, &who, &size) == 0 &&
          (who.uid == ::geteuid() || who.uid == 0))
        return peer;
    }
    if (fds[1].revents != 0) return fail("the machine ended before its init answered");
  }
}

}  // namespace

Result<> boot_agent(int listener, int monitor_pidfd, const GuestSetup& setup, u64 timeout_ns) {
  TRY_ASSIGN(std::vector<u8> frames, encode_setup(setup));
  const smol_agent request{SMOL_PROTOCOL_VERSION, 0};
  append_frame(frames, SMOL_FRAME_AGENT, base::bytes_of(request));
  TRY_ASSIGN(auto peer, accept_guest(listener, monitor_pidfd, timeout_ns));
  // Init scripts may take their time, and the monitor's end closes the connection: so the timeout
  // is all the patience.
  Conversation guest(std::move(peer), timeout_ns);
  TRY(guest.send_bytes(frames));
  TRY_ASSIGN(const Frame frame, guest.next());
  if (frame.type == SMOL_FRAME_READY) return {};
  if (frame.type != SMOL_FRAME_EXIT)
    return fail("the machine's init answered with the unexpected frame {}", frame.type);
  TRY_ASSIGN(const ProgramEnd end, end_of(frame.payload));
  return fail("{}", end.text);
}

}  // namespace smol::machines
