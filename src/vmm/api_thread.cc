#include "vmm/api_thread.h"

#include <pthread.h>

#include "api/json.h"
#include "base/log.h"
#include "sandbox/helper_thread.h"
#include "sandbox/seccomp.h"

namespace smol::vmm {
namespace {

constexpr u64 kPatienceNs = 1'000'000'000;

http::Response response_of(const api::Outcome<api::Answer>& outcome) {
  if (!outcome) return {.status = outcome.error().status(), .body = api::to_json(outcome.error())};
  if (std::holds_alternative<api::NoContent>(*outcome)) return {.status = 204, .body = {}};
  return {.status = 200, .body = api::to_json(*outcome)};
}

void handle(Controller& controller, http::Request request, const http::Server::Respond& respond) {
  auto parsed =
      api::parse_request(request.method, request.path, request.body, std::move(request.fds));
  if (!parsed) return respond(response_of(std::unexpected(parsed.error())));
  controller.submit(std::move(*parsed), [respond](const api::Outcome<api::Answer>& outcome) {
    respond(response_of(outcome));
  });
}

}  // namespace

Result<std::unique_ptr<ApiThread>> ApiThread::start(http::UnixListener listener,
                                                    Controller& controller, bool confine_itself) {
  auto api = std::unique_ptr<ApiThread>(new ApiThread());
  api->listener_ = std::move(listener);
  TRY_ASSIGN(api->loop_, base::EventLoop::create());
  const http::Limits limits{.body_bytes = api::kMaxBody};
  TRY_ASSIGN(api->server_,
             http::Server::create(
                 *api->loop_, api->listener_.fd(), limits,
                 [&controller](http::Request request, const http::Server::Respond& respond) {
                   handle(controller, std::move(request), respond);
                 }));
  api->thread_ = std::thread([loop = api->loop_.get(), confine_itself] {
    ::pthread_setname_np(::pthread_self(), "api");
    auto ran = confine_itself ? sandbox::confine_to_descriptors() : Result<>();
    if (ran) ran = sandbox::filter_thread(sandbox::ThreadKind::kApi);
    if (ran) ran = loop->run();
    if (!ran) base::log_error("the API is gone: {}", ran.error().chain());
  });
  return api;
}

ApiThread::~ApiThread() {
  if (!thread_.joinable()) return;
  loop_->post([this] { server_->finish(kPatienceNs, [this] { loop_->stop(); }); });
  thread_.join();
}

}  // namespace smol::vmm
