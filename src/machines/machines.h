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

  std::string data_;
  Store store_;
};

// The disks in a machine's folder.
std::string overlay_path(const std::string& folder);
std::string storage_path(const std::string& folder);
// Where the watcher of a monitor writes how it ended.
std::string end_path(const std::string& folder);
// "stopped", "was killed by signal 9", ...: what the watcher wrote; "" when nothing was.
std::string read_end(const std::string& folder);

}  // namespace smol::machines
