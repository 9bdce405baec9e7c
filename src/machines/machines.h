// A user's named machines: the life cycle that the CLI (and a daemon) drive.
//
// Two things are true at once: the record in the store, and the processes that run. Every call here
// first settles a record: a monitor that has ended makes it stopped, with the reason that its
// watcher wrote down; work that a killed process left half done is undone. So what is read is
// always what is.
//
// An object is used by one thread; any number of processes may have one.
#pragma once

#include <string>
#include <vector>

#include "machines/store.h"

namespace smol::machines {

class Machines {
 public:
  // Of the data folder of this user (data_dir.h), which is made when missing.
  static Result<Machines> open();

  const std::string& folder() const { return data_; }
  std::string machine_folder(const std::string& name) const;

  // Record, folder and disks; nothing is left of them after an Error. spec is validated here.
  Result<Record> create(const MachineSpec& spec);
  Result<Record> get(const std::string& name);  // unknown: an Error that names it
  Result<std::vector<Record>> list();           // by name
  // `edit` changes the spec of a stopped machine; disks that became larger are grown.
  Result<Record> update(const std::string& name, const std::function<Result<>(MachineSpec&)>& edit);
  // A stopped machine, its disks and its record. force: stops (kills) it first.
  Result<> remove(const std::string& name, bool force);

  struct StartOptions {
    ConstByteSpan image;            // the embedded initial root
    ConstByteSpan init_image = {};  // init alone, for machines whose root is a disk
    u64 started_at = 0;             // CLOCK_MONOTONIC ns at which the user asked
  };
  // Returns when the guest's agent listens. After an Error the record is as it was before.
  Result<Record> start(const std::string& name, const StartOptions& options);

  struct StopOptions {
    u64 grace_ns = 10'000'000'000;  // for the guest's own end
    bool force = false;             // do not ask the guest
  };
  Result<> stop(const std::string& name, const StopOptions& options);
  Result<> pause(const std::string& name);
  Result<> resume(const std::string& name);
  // The record of a machine that runs and is not paused; anything else is an Error that says what
  // it is.
  Result<Record> running(const std::string& name);

  struct Garbage {
    std::string path;
    u64 bytes = 0;
  };
  // Folders that belong to no machine.
  Result<std::vector<Garbage>> garbage();

  Store& store() { return store_; }

 private:
  Machines(std::string data, Store store) : data_(std::move(data)), store_(std::move(store)) {}
  // What a record means now; false: there is no such machine (its creation never ended).
  Result<bool> settle(Record& record);
  Result<Record> claim(const std::string& name, State state,
                       const std::function<Result<>(const Record&)>& allowed);
  Result<> make_disks(const MachineSpec& spec);
  Result<> boot(Record& record, const StartOptions& options);

  std::string data_;
  Store store_;
};

// The disks in a machine's folder.
std::string overlay_path(const std::string& folder);
std::string storage_path(const std::string& folder);
// Where the watcher of a monitor writes how it ended.
std::string end_path(const std::string& folder);
// "machine 'web' is being started by process 7"; record.state is one of work.
Error busy_error(const Record& record);
// The reason of a machine that ended by itself, and well.
inline constexpr const char* kGuestEnded = "the guest ended";
// What the watcher wrote, and what the guest's kernel or the monitor said last, as a clause:
// "monitor was killed by signal 9", "its main program ended with status 3".
std::string describe_end(const std::string& folder);

}  // namespace smol::machines
