// Threads of devices.
#pragma once

#include <functional>
#include <thread>

namespace smol::base {

// Called first on every thread that start_worker() makes from now on. The monitor's sandbox sets
// it, so that a device need not know of it; it ends the process when it fails.
void set_worker_entry(void (*entry)());

// name: at most 15 bytes, for people who look at the process.
std::thread start_worker(const char* name, std::function<void()> body);

}  // namespace smol::base
