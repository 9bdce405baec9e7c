// The records of a user's machines: one SQLite database that any number of processes use at once.
//
// Choice: a table with the spec as JSON and the state beside it; WAL, so that readers never wait;
// each change of a record is one immediate transaction that reads, decides and writes, so of two
// processes that want the same change one sees what the other did. A process that is killed in
// between leaves either the old or the new record. The schema's number is the database's
// user_version; a higher one than ours is refused and nothing is touched.
//
// An object is used by one thread.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "machines/process_identity.h"
#include "machines/spec.h"

struct sqlite3;

namespace smol::machines {

enum class State {
  kCreating,
  kCreated,
  kStarting,
  kRunning,
  kPaused,
  kStopping,
  kStopped,
  kDeleting
};
const char* name_of(State state);

struct Record {
  MachineSpec spec;
  State state = State::kCreated;
  ProcessIdentity monitor;  // smol-vmm; none while stopped
  ProcessIdentity
      worker;  // the process that is creating, starting, stopping or deleting the machine
  i64 created_ms = 0, started_ms = 0, ended_ms = 0;  // Unix time; 0: never
  std::string reason;   // why it is not running, where there is more to say than "stopped"
  std::string sockets;  // folder of api.sock and vsock.sock of the running monitor
  std::string address;  // in its segment, a.b.c.d; "" without one
};

class Store {
 public:
  // Creates the file where it is missing (its folder must be there).
  static Result<Store> open(const std::string& path);
  Store(Store&&) noexcept;
  Store& operator=(Store&&) noexcept;
  ~Store();

  // Fails when a machine of that name is there, unless replace (asked within the transaction) lets
  // the old one go.
  Result<> add(const Record& record, const std::function<bool(const Record&)>& replace = {});
  Result<std::optional<Record>> find(const std::string& name);
  Result<Record> get(const std::string& name);  // an unknown name is an Error
  Result<std::vector<Record>> list();           // by name
  // Reads the record, lets `decide` change it, writes it: one transaction; an Error of decide
  // changes nothing.
  Result<Record> change(const std::string& name, const std::function<Result<>(Record&)>& decide);
  Result<> remove(const std::string& name);
  // The machine's address on its segment, of 10.88.0.0/16: the one that its record has, or, where
  // another machine of the segment has that, or it has none, a free one, which the record then has.
  Result<std::string> take_address(const std::string& machine);

 private:
  explicit Store(sqlite3* database, std::string path);
  Result<> enter_wal();
  Result<> prepare_schema();
  Result<> execute(const char* sql);
  Result<> write(const Record& record);
  Result<std::string> free_address(const Record& machine);
  template <class Body>
  Result<> transaction(const Body& body);

  struct Closer {
    void operator()(sqlite3* database) const;
  };
  std::unique_ptr<sqlite3, Closer> database_;
  std::string path_;
};

i64 unix_time_ms();

}  // namespace smol::machines
