// AgentClient's copies: archives between a descriptor and the guest, and trees of this host by way
// of one.
//
// A tree becomes an archive (guest/tar) in a thread of its own that writes into a pipe, whose other
// end is copied as any archive is: so there is one way to speak with the guest, and neither side
// has to hold more than a pipe full.
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstring>
#include <mutex>
#include <thread>

#include "guest/protocol/protocol.h"
#include "guest/tar/tar.h"
#include "machines/agent_client.h"
#include "machines/conversation.h"

namespace smol::machines {
namespace {

constexpr std::size_t kMessagesKept = 100;

Result<std::vector<u8>> encode_copy(const smol_copy& head, const std::string& path) {
  if (path.empty() || path.front() != '/' || path.find('\0') != std::string::npos ||
      path.size() > 4000)
    return fail("'{}': a path in the guest begins with '/' and has at most 4000 bytes", path);
  const ConstByteSpan bytes = base::bytes_of(head);
  std::vector<u8> out(bytes.begin(), bytes.end());
  out.insert(out.end(), path.begin(), path.end());
  out.push_back(0);
  return out;
}

void add_problem(CopyResult& result, std::string message) {
  ++result.problems;
  if (result.messages.size() < kMessagesKept) result.messages.push_back(std::move(message));
}

std::string text_behind(ConstByteSpan payload, std::size_t head) {
  if (payload.size() < head) return "";
  return {reinterpret_cast<const char*>(payload.data()) + head, payload.size() - head};
}

// DONE and PROBLEM. True: the copy is over.
Result<bool> take_answer(const Frame& frame, CopyResult& result) {
  if (frame.type == SMOL_FRAME_PROBLEM) {
    add_problem(result, text_behind(frame.payload, 4));
    return false;
  }
  if (frame.type != SMOL_FRAME_DONE || frame.payload.size() < sizeof(smol_done))
    return fail("the machine's agent answered with the unexpected frame {}", frame.type);
  const auto done = base::load<smol_done>(frame.payload.data());
  if (done.error == 0) return true;
  // What is known of single paths says more than that the whole failed.
  std::string text = text_behind(frame.payload, sizeof(smol_done));
  if (!result.messages.empty()) text += fmt::format(" ({})", result.messages.back());
  return fail("{}", text);
}

// One DATA frame from the archive. False: it has ended.
Result<bool> read_chunk(int archive, std::vector<u8>& frame) {
  u8 chunk[SMOL_MAX_DATA];
  std::size_t used = 0;
  while (used < sizeof(chunk)) {
    const ssize_t got = ::read(archive, chunk + used, sizeof(chunk) - used);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return fail_errno("cannot read the archive");
    if (got == 0) break;
    used += static_cast<std::size_t>(got);
    // A pipe gives what it has: better sent than waited for.
    if (used >= sizeof(chunk) / 2) break;
  }
  frame.clear();
  if (used > 0) append_frame(frame, SMOL_FRAME_DATA, {chunk, used});
  return used > 0;
}

// Sends while it listens: an agent that tells of many problems must not wait for us while we wait
// for it. True: it has ended the copy.
Result<bool> send_listening(Conversation& agent, ConstByteSpan bytes, CopyResult& result) {
  while (!bytes.empty()) {
    Frame frame;
    TRY_ASSIGN(const bool there, agent.poll_frame(frame));
    if (there) {
      TRY_ASSIGN(const bool over, take_answer(frame, result));
      if (over) return true;
      continue;
    }
    const ssize_t put = ::send(agent.fd(), bytes.data(), bytes.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    if (put >= 0) {
      bytes = bytes.subspan(static_cast<std::size_t>(put));
    } else if (errno == EAGAIN) {
      TRY(agent.wait(POLLIN | POLLOUT));
    } else if (errno == EPIPE || errno == ECONNRESET) {
      TRY_ASSIGN(frame, agent.next());  // its last words
      TRY_ASSIGN(const bool over, take_answer(frame, result));
      if (over) return true;
    } else if (errno != EINTR) {
      return fail_errno("the machine's agent takes no more");
    }
  }
  return false;
}

// --- Trees of this host ---

// What tar_pack and tar_unpack say and do, from their thread.
struct TreeSide {
  int fd = -1;  // the pipe's end
  CopyResult found;
};

bool write_pipe(void* context, const void* bytes, std::size_t size) {
  const auto* const side = static_cast<TreeSide*>(context);
  const auto* from = static_cast<const u8*>(bytes);
  while (size > 0) {
    const ssize_t put = ::write(side->fd, from, size);
    if (put < 0 && errno == EINTR) continue;
    if (put <= 0) return false;
    from += put;
    size -= static_cast<std::size_t>(put);
  }
  return true;
}

ssize_t read_pipe(void* context, void* buffer, std::size_t size) {
  const auto* const side = static_cast<TreeSide*>(context);
  for (;;) {
    const ssize_t got = ::read(side->fd, buffer, size);
    if (got >= 0 || errno != EINTR) return got;
  }
}

void note_problem(void* context, const char* path, int error, const char* what) {
  std::string message = fmt::format("{}: {}", path, what);
  if (error != 0) message += fmt::format(": {}", std::strerror(error));
  add_problem(static_cast<TreeSide*>(context)->found, std::move(message));
}

void merge(CopyResult& into, CopyResult&& more) {
  into.problems += more.problems;
  for (std::string& message : more.messages)
    if (into.messages.size() < kMessagesKept) into.messages.push_back(std::move(message));
}

struct Pipe {
  base::UniqueFd read, write;
  static Result<Pipe> create() {
    ::signal(SIGPIPE, SIG_IGN);  // an end that goes away is an error like others
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) != 0) return fail_errno("cannot create a pipe");
    ::fcntl(ends[1], F_SETPIPE_SZ, 1 << 20);  // fewer wake-ups; the default is enough
    return Pipe{base::UniqueFd(ends[0]), base::UniqueFd(ends[1])};
  }
};

struct Split {
  std::string folder, name;
};

// "a/b/c/" -> "a/b", "c". The names "." and ".." and "/" have no last component.
Split split(std::string path) {
  while (path.size() > 1 && path.back() == '/') path.pop_back();
  const std::size_t slash = path.rfind('/');
  Split out{slash == std::string::npos ? "."
            : slash == 0               ? "/"
                                       : path.substr(0, slash),
            slash == std::string::npos ? path : path.substr(slash + 1)};
  if (out.name.empty() || out.name == "." || out.name == "..") return {path, ""};
  return out;
}

}  // namespace

Result<CopyResult> AgentClient::copy_in(const CopyIn& request, int archive,
                                        const CopyProgress& progress) const {
  const smol_copy head{(request.into ? u32{SMOL_COPY_INTO} : 0) |
                           (request.owner ? u32{SMOL_COPY_OWNER} : 0) |
                           (request.mode ? u32{SMOL_COPY_MODE} : 0),
                       request.uid, request.gid, request.mode_bits};
  TRY_ASSIGN(const auto payload, encode_copy(head, request.path));
  TRY_ASSIGN(auto fd, open());
  Conversation agent(std::move(fd),
                     patience_ns_ * 6);  // a guest that writes to a slow disk is not gone
  TRY(agent.send(SMOL_FRAME_COPY_IN, payload));
  CopyResult result;
  std::vector<u8> frame;
  bool more = true;
  while (more) {
    TRY_ASSIGN(more, read_chunk(archive, frame));
    result.bytes += more ? frame.size() - SMOL_FRAME_HEADER_SIZE : 0;
    if (!more) append_frame(frame, SMOL_FRAME_DATA_END, {});
    TRY_ASSIGN(const bool over, send_listening(agent, frame, result));
    if (over) return result;
    if (progress) progress(result.bytes);
  }
  for (;;) {
    TRY_ASSIGN(const Frame answer, agent.next());
    TRY_ASSIGN(const bool over, take_answer(answer, result));
    if (over) return result;
  }
}

Result<CopyResult> AgentClient::copy_out(const CopyOut& request, int archive,
                                         const CopyProgress& progress) const {
  const smol_copy head{(request.follow ? u32{SMOL_COPY_FOLLOW} : 0) |
                           (request.contents ? u32{SMOL_COPY_CONTENTS} : 0),
                       0, 0, 0};
  TRY_ASSIGN(const auto payload, encode_copy(head, request.path));
  TRY_ASSIGN(auto fd, open());
  Conversation agent(std::move(fd), patience_ns_ * 6);
  TRY(agent.send(SMOL_FRAME_COPY_OUT, payload));
  CopyResult result;
  bool whole = false;
  for (;;) {
    TRY_ASSIGN(const Frame frame, agent.next());
    if (frame.type == SMOL_FRAME_DATA) {
      TRY(base::write_all(archive, frame.payload, "the archive"));
      result.bytes += frame.payload.size();
      if (progress) progress(result.bytes);
    } else if (frame.type == SMOL_FRAME_DATA_END) {
      whole = true;
    } else {
      TRY_ASSIGN(const bool over, take_answer(frame, result));
      if (over)
        return whole ? Result<CopyResult>(result)
                     : fail("the machine's agent ended the copy early");
    }
  }
}

Result<CopyResult> AgentClient::copy_tree_in(const std::string& from, const CopyIn& request,
                                             const CopyProgress& progress) const {
  const Split place = split(from);
  TRY_ASSIGN(const base::UniqueFd folder, base::open_file(place.folder, O_RDONLY | O_DIRECTORY));
  TRY_ASSIGN(Pipe pipe, Pipe::create());
  TreeSide side{.fd = pipe.write.get(), .found = {}};
  bool packed = false;
  char why[200] = "";
  std::thread packer([&] {
    const bool whole = place.name.empty();
    const tar_pack_options options{.folder = folder.get(),
                                   .name = whole ? "." : place.name.c_str(),
                                   .member = whole ? nullptr : place.name.c_str(),
                                   .follow = false,
                                   .write = write_pipe,
                                   .problem = note_problem,
                                   .context = &side};
    packed = tar_pack(&options, why);
    pipe.write.reset();
  });
  auto result = copy_in(request, pipe.read.get(), progress);
  pipe.read.reset();  // a packer that still writes ends
  packer.join();
  if (!packed && (result || side.found.bytes == 0) && why[0] != '\0' && result)
    return fail("{}", why);
  TRY(result);
  merge(*result, std::move(side.found));
  return result;
}

Result<CopyResult> AgentClient::copy_tree_out(const CopyOut& request, const std::string& to,
                                              const CopyProgress& progress) const {
  struct stat there{};
  const bool into = ::stat(to.c_str(), &there) == 0 && S_ISDIR(there.st_mode);
  const Split place = into ? Split{to, ""} : split(to);
  if (!into && (place.name.empty() || to.back() == '/')) return fail("{}: no such folder", to);
  TRY_ASSIGN(const base::UniqueFd folder, base::open_file(place.folder, O_PATH | O_DIRECTORY));
  TRY_ASSIGN(Pipe pipe, Pipe::create());
  TreeSide side{.fd = pipe.read.get(), .found = {}};
  bool unpacked = false;
  char why[200] = "";
  std::thread unpacker([&] {
    const tar_unpack_options options{.folder = folder.get(),
                                     .first_name = into ? nullptr : place.name.c_str(),
                                     .links_inside = false,
                                     .distrust = true,
                                     .keep_owners = ::geteuid() == 0,
                                     .set_owner = false,
                                     .set_mode = false,
                                     .uid = 0,
                                     .gid = 0,
                                     .mode = 0,
                                     .read = read_pipe,
                                     .problem = note_problem,
                                     .context = &side};
    unpacked = tar_unpack(&options, why);
    pipe.read.reset();  // a guest that still sends is told by the broken pipe
  });
  auto result = copy_out(request, pipe.write.get(), progress);
  pipe.write.reset();
  unpacker.join();
  if (!unpacked && why[0] != '\0' && (result || result.error().error_number() == EPIPE))
    return fail("{}: {}", to, side.found.messages.empty() ? why : side.found.messages.back());
  TRY(result);
  merge(*result, std::move(side.found));
  return result;
}

}  // namespace smol::machines
