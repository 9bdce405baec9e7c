// The signal that takes a thread out of KVM_RUN.
//
// KVM leaves guest mode for a signal, and `immediate_exit` in the shared page covers the time
// before KVM_RUN is entered, so the signal's handler has nothing to do; it exists, without
// SA_RESTART, so that the signal is not fatal and is not swallowed. Private to this folder.
#pragma once

#include <sys/types.h>

#include "base/result.h"

namespace smol::hypervisor::kvm {

// Installs the handler once a process. Fails when someone else has a handler on this signal.
Result<> install_kick_handler();
// The calling thread's id, cached.
pid_t current_thread();
// Interrupts a thread of this process. Async-signal-safe; keeps errno.
void interrupt_thread(pid_t thread);
// Makes sure that the calling thread does not block the signal (it is inherited from a creator's
// mask).
Result<> unblock_kick_signal();

}  // namespace smol::hypervisor::kvm
