// A lock that many readers or one writer hold. std::shared_mutex lets a stream of readers starve
// writers (glibc's default); this one lets a waiting writer go first.
#pragma once

#include <pthread.h>

#include "base/check.h"

namespace smol::storage {

// A thread that holds it shared must not take it again.
class ReadWriteLock {
 public:
  ReadWriteLock() {
    pthread_rwlockattr_t attributes;
    ::pthread_rwlockattr_init(&attributes);
    ::pthread_rwlockattr_setkind_np(&attributes, PTHREAD_RWLOCK_PREFER_WRITER_NONRECURSIVE_NP);
    CHECK(::pthread_rwlock_init(&lock_, &attributes) == 0);
    ::pthread_rwlockattr_destroy(&attributes);
  }
  ~ReadWriteLock() { ::pthread_rwlock_destroy(&lock_); }
  ReadWriteLock(const ReadWriteLock&) = delete;
  ReadWriteLock& operator=(const ReadWriteLock&) = delete;

  // The names that std::shared_lock and std::unique_lock use.
  void lock() { CHECK(::pthread_rwlock_wrlock(&lock_) == 0); }
  void unlock() { ::pthread_rwlock_unlock(&lock_); }
  void lock_shared() { CHECK(::pthread_rwlock_rdlock(&lock_) == 0); }
  bool try_lock_shared() { return ::pthread_rwlock_tryrdlock(&lock_) == 0; }
  void unlock_shared() { ::pthread_rwlock_unlock(&lock_); }

 private:
  pthread_rwlock_t lock_;
};

}  // namespace smol::storage
