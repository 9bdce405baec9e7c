// An HTTP/1.1 server on an event loop: keep-alive, one request of a connection at a time, limits on
// sizes, times and connections.
//
// A request goes to the handler; its answer may come later and from any thread. A client that goes
// away meanwhile is forgotten, its request is not undone. Connections beyond the limit: the one
// that was idle longest is closed for the new one; when none is idle, new ones wait in the
// listener's backlog. A request must be there whole within Limits::transfer_ns of its first byte, a
// response taken in the same time; an idle connection may stay.
//
// Threads: everything on the loop's thread but Respond.
#pragma once

#include <functional>
#include <memory>
#include <unordered_map>

#include "base/event_loop.h"
#include "http/connection.h"
#include "http/message.h"

namespace smol::http {

class Server {
 public:
  // To be called once, from any thread, while the loop lives.
  using Respond = std::function<void(Response)>;
  // On the loop's thread; must not block.
  using Handler = std::function<void(Request, Respond)>;

  // listener: non-blocking, kept open by the caller while the server lives.
  static Result<std::unique_ptr<Server>> create(base::EventLoop& loop, int listener,
                                                const Limits& limits, Handler handler);
  ~Server();

  // No new connections or requests; calls done when all that was asked has been answered and taken,
  // at the latest after patience_ns.
  void finish(u64 patience_ns, std::function<void()> done);

 private:
  Server(base::EventLoop& loop, int listener, const Limits& limits, Handler handler)
      : loop_(loop), listener_(listener), limits_(limits), handler_(std::move(handler)) {}
  void accept_ready();
  bool make_room();
  void socket_ready(u64 id, u32 events);
  void serve(u64 id, std::optional<Request> request);
  void answer(u64 id, const Response& response);
  // After anything that happened to it: deadline, what it is watched for, or its end.
  void settle(u64 id);
  void watch_listener(bool on);
  void tick();
  void check_finished();

  base::EventLoop& loop_;
  const int listener_;
  const Limits limits_;
  const Handler handler_;
  std::unique_ptr<base::Timer> timer_;
  bool ticking_ = false;
  bool listener_watched_ = false;
  u64 next_id_ = 1;
  std::unordered_map<u64, std::unique_ptr<Connection>> connections_;
  std::function<void()> finished_;
  u64 finish_deadline_ns_ = 0;
  // shared: an answer that comes when the server is gone must find that out.
  std::shared_ptr<Server*> self_ = std::make_shared<Server*>(this);
};

}  // namespace smol::http
