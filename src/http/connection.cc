#include "http/connection.h"

#include <sys/epoll.h>
#include <sys/socket.h>

#include <array>
#include <cerrno>
#include <cstring>

namespace smol::http {
namespace {

constexpr std::size_t kReadSize = 16 * kKiB;
// The kernel never gives more descriptors with one message (SCM_MAX_FD).
constexpr std::size_t kMostFds = 253;
// What a refused peer may still send before it is cut off.
constexpr std::size_t kMostLingering = 4 * kMiB;

std::string_view reason_of(unsigned status) {
  switch (status) {
    case 200:
      return "OK";
    case 204:
      return "No Content";
    case 400:
      return "Bad Request";
    case 404:
      return "Not Found";
    case 409:
      return "Conflict";
    case 429:
      return "Too Many Requests";
    default:
      return "Internal Server Error";
  }
}

// The refusal as a JSON array of one sentence. Sentences of ours have nothing to escape but quotes;
// others are dropped.
std::string as_json(std::string_view sentence) {
  std::string out = "[\"";
  for (const char c : sentence)
    if (c >= ' ' && c <= '~') out += c == '"' || c == '\\' ? '\'' : c;
  return out + "\"]";
}

}  // namespace

u32 Connection::interest() const {
  switch (state_) {
    case State::kReading:
    case State::kLingering:
      return EPOLLIN;
    case State::kWriting:
      return EPOLLOUT;
    case State::kServing:
    case State::kClosed:
      return 0;
  }
  return 0;
}

void Connection::keep_fds(const msghdr& message) {
  for (cmsghdr* control = CMSG_FIRSTHDR(&message); control != nullptr;
       control = CMSG_NXTHDR(const_cast<msghdr*>(&message), control)) {
    if (control->cmsg_level != SOL_SOCKET || control->cmsg_type != SCM_RIGHTS) continue;
    const std::size_t count = (control->cmsg_len - CMSG_LEN(0)) / sizeof(int);
    for (std::size_t i = 0; i < count; ++i) {
      int fd = -1;
      std::memcpy(&fd, CMSG_DATA(control) + i * sizeof(int), sizeof(int));
      fds_.emplace_back(fd);
    }
  }
}

bool Connection::receive() {
  std::array<char, kReadSize> bytes;
  alignas(cmsghdr) std::array<char, CMSG_SPACE(kMostFds * sizeof(int))> control;
  iovec part{.iov_base = bytes.data(), .iov_len = bytes.size()};
  msghdr message{};
  message.msg_iov = &part;
  message.msg_iovlen = 1;
  message.msg_control = control.data();
  message.msg_controllen = control.size();
  ssize_t got;
  do {
    got = ::recvmsg(socket_.get(), &message, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
  } while (got < 0 && errno == EINTR);
  if (got < 0) {
    if (errno != EAGAIN) state_ = State::kClosed;
    return false;
  }
  if (got == 0) {
    input_ended_ = true;
    return false;
  }
  keep_fds(message);
  if (state_ == State::kLingering) {
    fds_.clear();
    lingered_ += static_cast<std::size_t>(got);
    return lingered_ <= kMostLingering;
  }
  buffer_.append(bytes.data(), static_cast<std::size_t>(got));
  return true;
}

std::optional<Request> Connection::readable() {
  if (state_ == State::kLingering) {
    if (!receive()) state_ = State::kClosed;
    return std::nullopt;
  }
  if (state_ != State::kReading) return std::nullopt;
  if (receive()) return next_request();
  if (input_ended_) state_ = State::kClosed;  // what is here of a request is dropped
  return std::nullopt;
}

std::optional<Request> Connection::next_request() {
  std::size_t taken = 0;
  while (taken < buffer_.size() && !parser_.done()) {
    const auto used = parser_.put(std::string_view(buffer_).substr(taken));
    if (!used) {
      refuse(used.error());
      return std::nullopt;
    }
    if (*used == 0) break;
    taken += *used;
  }
  buffer_.erase(0, taken);
  if (fds_.size() > limits_.fds) {
    refuse(Error(fmt::format("{} descriptors came beside the request, at most {} are taken",
                             fds_.size(), limits_.fds)));
    return std::nullopt;
  }
  if (!parser_.done()) {
    // One small line: a peer whose socket is full does not wait for it.
    constexpr std::string_view kContinue = "HTTP/1.1 100 Continue\r\n\r\n";
    if (parser_.take_expectation())
      ::send(socket_.get(), kContinue.data(), kContinue.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    return std::nullopt;
  }
  Request request = parser_.take();
  request.fds = std::exchange(fds_, {});
  keep_alive_ = request.keep_alive;
  state_ = State::kServing;
  return request;
}

std::optional<Request> Connection::respond(const Response& response) {
  if (state_ != State::kServing) return std::nullopt;
  begin_response(response, keep_alive_);
  return writable();
}

std::optional<Request> Connection::writable() {
  write();
  // The next one may have come with the last.
  return state_ == State::kReading && !buffer_.empty() ? next_request() : std::nullopt;
}

void Connection::refuse(const Error& error) {
  begin_response({.status = 400, .body = as_json(error.message())}, false);
  fds_.clear();
  buffer_.clear();
  write();
}

void Connection::begin_response(const Response& response, bool keep_alive) {
  keep_alive_ = keep_alive;
  output_ = fmt::format("HTTP/1.1 {} {}\r\nServer: smol-vmm\r\nConnection: {}\r\n", response.status,
                        reason_of(response.status), keep_alive ? "keep-alive" : "close");
  if (response.status != 204)
    output_ += fmt::format("Content-Type: {}\r\nContent-Length: {}\r\n", response.content_type,
                           response.body.size());
  output_ += "\r\n";
  if (response.status != 204) output_ += response.body;
  output_done_ = 0;
  state_ = State::kWriting;
}

void Connection::write() {
  while (output_done_ < output_.size()) {
    const ssize_t put = ::send(socket_.get(), output_.data() + output_done_,
                               output_.size() - output_done_, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (put < 0 && errno == EINTR) continue;
    if (put < 0) {
      if (errno != EAGAIN) state_ = State::kClosed;
      return;
    }
    output_done_ += static_cast<std::size_t>(put);
  }
  output_.clear();
  if (keep_alive_) {
    state_ = State::kReading;
  } else {
    // Closing with unread bytes would take the response from the peer.
    ::shutdown(socket_.get(), SHUT_WR);
    state_ = State::kLingering;
  }
}

}  // namespace smol::http
