#include "base/thread.h"

#include <pthread.h>

#include <atomic>

namespace smol::base {
namespace {

std::atomic<void (*)()> g_entry{nullptr};

}  // namespace

void set_worker_entry(void (*entry)()) { g_entry = entry; }

std::thread start_worker(const char* name, std::function<void()> body) {
  return std::thread([name, body = std::move(body)] {
    ::pthread_setname_np(::pthread_self(), name);
    if (const auto entry = g_entry.load()) entry();
    body();
  });
}

}  // namespace smol::base
