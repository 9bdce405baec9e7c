// One client's connection: requests one after the other, each answered before the next is looked
// at, so that pipelining costs at most one buffer of bytes. Loop thread only.
#pragma once

#include <sys/socket.h>

#include <optional>
#include <string>
#include <vector>

#include "http/message.h"
#include "http/request_parser.h"

namespace smol::http {

class Connection {
 public:
  enum class State {
    kReading,    // a request, or nothing yet
    kServing,    // the handler has a request
    kWriting,    // a response
    kLingering,  // after a refusal: what the peer still sends is thrown away, so that it reads the
                 // refusal
    kClosed,
  };

  Connection(base::UniqueFd socket, const Limits& limits)
      : limits_(limits), socket_(std::move(socket)), parser_(limits) {}

  int fd() const { return socket_.get(); }
  State state() const { return state_; }
  // Nothing of a request is here.
  bool idle() const { return state_ == State::kReading && buffer_.empty() && !parser_.started(); }
  // What to watch the socket for (EPOLLIN, EPOLLOUT).
  u32 interest() const;

  // The socket is ready. A request that is complete: state() is kServing then.
  std::optional<Request> readable();
  std::optional<Request> writable();
  // The answer to the request that was given out; gives the next one if it is here already.
  std::optional<Request> respond(const Response& response);
  // The peer did wrong: told with 400, then the connection ends.
  void refuse(const Error& error);

  u64 deadline_ns = 0;  // 0: none; by the server
  u64 idle_since_ns = 0;

 private:
  std::optional<Request> next_request();
  // False: nothing more now.
  bool receive();
  void keep_fds(const ::msghdr& message);
  void begin_response(const Response& response, bool keep_alive);
  void write();

  const Limits limits_;
  base::UniqueFd socket_;
  RequestParser parser_;
  State state_ = State::kReading;
  std::string buffer_;  // read, not parsed
  std::vector<base::UniqueFd> fds_;
  std::string output_;
  std::size_t output_done_ = 0;
  bool keep_alive_ = true;    // of the request that is served
  bool input_ended_ = false;  // the peer sends no more
  std::size_t lingered_ = 0;
};

}  // namespace smol::http
