// The thread that serves the API socket: HTTP in, requests to the controller's queue, its answers
// out.
#pragma once

#include <memory>
#include <thread>

#include "http/server.h"
#include "http/unix_listener.h"
#include "vmm/controller.h"

namespace smol::vmm {

class ApiThread {
 public:
  // controller must outlive it. confine_itself: the process is not confined yet.
  static Result<std::unique_ptr<ApiThread>> start(http::UnixListener listener,
                                                  Controller& controller, bool confine_itself);
  // Lets clients take the answers to what they asked, for a second at most. After
  // Controller::run(), which answers everything.
  ~ApiThread();

 private:
  ApiThread() = default;
  http::UnixListener listener_;
  std::unique_ptr<base::EventLoop> loop_;
  std::unique_ptr<http::Server> server_;
  std::thread thread_;
};

}  // namespace smol::vmm
