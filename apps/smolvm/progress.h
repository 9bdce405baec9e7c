// A line on the terminal for what takes longer than a second: "Starting machine 'web'... 3 s". Only
// on standard error, only where that is a terminal; gone when the work is done.
#pragma once

#include <condition_variable>
#include <mutex>
#include <string>
#include <thread>

namespace smolvm {

class Progress {
 public:
  explicit Progress(std::string what);
  ~Progress();
  Progress(const Progress&) = delete;
  Progress& operator=(const Progress&) = delete;
  // More to say behind the time; any thread.
  void detail(std::string text);

 private:
  void show();

  const std::string what_;
  std::mutex mutex_;  // guards all below
  std::condition_variable changed_;
  std::string detail_;
  bool done_ = false, shown_ = false;
  std::thread thread_;
};

}  // namespace smolvm
