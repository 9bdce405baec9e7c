#include "machines/machines.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/directory.h"
#include "image/ext4.h"
#include "machines/data_dir.h"

namespace smol::machines {
namespace {

constexpr int kKillWaitMs = 10'000, kStopWaitMs = 3'000;

bool at_work(State state) {
  return state == State::kCreating || state == State::kStarting || state == State::kStopping ||
         state == State::kDeleting;
}

void kill_and_wait(const ProcessIdentity& process) {
  if (const auto fd = open_process(process)) {
    signal_process(*fd, SIGKILL);
    wait_for_end(*fd, kKillWaitMs);
  }
}

// Of a stop whose process was killed: the guest may be on its way out, and gets a moment for it.
void finish_stop(const ProcessIdentity& process) {
  const auto fd = open_process(process);
  if (!fd) return;
  for (const int signal : {0, SIGTERM, SIGKILL}) {
    if (signal != 0) signal_process(*fd, signal);
    if (wait_for_end(*fd, kStopWaitMs)) return;
  }
}

void set_stopped(Record& record, std::string reason) {
  record.state = State::kStopped;
  record.monitor = record.worker = {};
  record.reason = std::move(reason);
  record.ended_ms = unix_time_ms();
}

Result<> must_be_idle(const Record& record, std::string_view what) {
  const std::string& name = record.spec.name;
  if (at_work(record.state)) return std::unexpected(busy_error(record));
  if (record.state == State::kRunning || record.state == State::kPaused)
    return fail("machine '{}' is {} (PID: {}); stop it to {}", name, name_of(record.state),
                record.monitor.pid, what);
  return {};
}

}  // namespace

Error busy_error(const Record& record) {
  const char* const work = record.state == State::kCreating   ? "created"
                           : record.state == State::kStarting ? "started"
                           : record.state == State::kStopping ? "stopped"
                                                              : "deleted";
  return Error(fmt::format("machine '{}' is being {} by process {}", record.spec.name, work,
                           record.worker.pid));
}

std::string overlay_path(const std::string& folder) { return folder + "/overlay.raw"; }
std::string storage_path(const std::string& folder) { return folder + "/storage.raw"; }
std::string end_path(const std::string& folder) { return folder + "/end"; }

Result<Machines> Machines::open() {
  TRY_ASSIGN(std::string data, data_dir());
  TRY(make_folders(data + "/machines"));
  TRY_ASSIGN(auto store, Store::open(database_path(data)));
  return Machines(std::move(data), std::move(store));
}

std::string Machines::machine_folder(const std::string& name) const {
  return machine_dir(data_, name);
}

// Called within a transaction or on a copy; it is the same either way, because it only follows from
// the record and the processes.
Result<bool> Machines::settle(Record& record) {
  if (at_work(record.state) && alive(record.worker)) return true;
  const std::string folder = machine_folder(record.spec.name);
  switch (record.state) {
    case State::kCreating:
      return false;
    case State::kStarting:
      kill_and_wait(record.monitor);
      set_stopped(record, "its start was interrupted");
      return true;
    case State::kStopping:
      finish_stop(record.monitor);
      set_stopped(record, "");
      return true;
    case State::kDeleting:
      kill_and_wait(record.monitor);
      if (::access(folder.c_str(), F_OK) != 0) return false;
      set_stopped(record, "its deletion was interrupted");
      return true;
    case State::kRunning:
    case State::kPaused:
      if (alive(record.monitor)) return true;
      set_stopped(record, describe_end(folder));
      return true;
    case State::kCreated:
    case State::kStopped:
      return true;
  }
  return true;
}

Result<Record> Machines::get(const std::string& name) {
  TRY_ASSIGN(Record record, store_.get(name));
  const State before = record.state;
  TRY_ASSIGN(const bool there, settle(record));
  if (!there) return fail("machine '{}' not found", name);
  if (record.state == before) return record;
  return store_.change(name, [this](Record& fresh) -> Result<> {
    TRY_ASSIGN(const bool still, settle(fresh));
    return still ? Result<>{} : fail("machine '{}' not found", fresh.spec.name);
  });
}

Result<std::vector<Record>> Machines::list() {
  TRY_ASSIGN(auto records, store_.list());
  std::vector<Record> out;
  for (Record& record : records) {
    const State before = record.state;
    TRY_ASSIGN(const bool there, settle(record));
    if (!there) continue;
    if (record.state != before) {
      auto fresh = get(record.spec.name);
      if (!fresh) continue;  // deleted meanwhile
      record = std::move(*fresh);
    }
    out.push_back(std::move(record));
  }
  return out;
}

Result<> Machines::make_disks(const MachineSpec& spec) {
  const std::string folder = machine_folder(spec.name);
  TRY(remove_tree(folder));
  TRY(make_folders(folder));
  TRY(image::make_ext4(overlay_path(folder), spec.overlay_gib * kGiB, "smol-overlay"));
  if (spec.storage_gib != 0)
    TRY(image::make_ext4(storage_path(folder), spec.storage_gib * kGiB, "smol-storage"));
  return {};
}

Result<Record> Machines::create(const MachineSpec& spec) {
  TRY(validate(spec));
  Record record;
  record.spec = spec;
  record.state = State::kCreating;
  record.worker = own_identity();
  record.created_ms = unix_time_ms();
  TRY(store_.add(record, [this](const Record& old) {
    Record copy = old;
    const auto there = settle(copy);
    return there && !*there;
  }));
  if (const auto made = make_disks(spec); !made) {
    (void)remove_tree(machine_folder(spec.name));
    TRY(store_.remove(spec.name));
    return wrap(made.error(), "cannot create machine '{}'", spec.name);
  }
  return store_.change(spec.name, [](Record& fresh) -> Result<> {
    fresh.state = State::kCreated;
    fresh.worker = {};
    return {};
  });
}

Result<Record> Machines::claim(const std::string& name, State state,
                               const std::function<Result<>(const Record&)>& allowed) {
  TRY_ASSIGN(const Record settled, get(name));  // what takes time is done before the transaction
  return store_.change(name, [&](Record& record) -> Result<> {
    TRY_ASSIGN(const bool there, settle(record));
    if (!there) return fail("machine '{}' not found", name);
    TRY(allowed(record));
    record.state = state;
    record.worker = own_identity();
    return {};
  });
}

Result<Record> Machines::update(const std::string& name,
                                const std::function<Result<>(MachineSpec&)>& edit) {
  return store_.change(name, [&](Record& record) -> Result<> {
    TRY_ASSIGN(const bool there, settle(record));
    if (!there) return fail("machine '{}' not found", name);
    TRY(must_be_idle(record, "update it"));
    const MachineSpec old = record.spec;
    TRY(edit(record.spec));
    TRY(validate(record.spec));
    const std::string folder = machine_folder(name);
    if (record.spec.overlay_gib < old.overlay_gib)
      return fail("--overlay {}: the disk has {} GiB and cannot shrink", record.spec.overlay_gib,
                  old.overlay_gib);
    if (record.spec.storage_gib < old.storage_gib)
      return fail("--storage {}: the disk has {} GiB and cannot shrink", record.spec.storage_gib,
                  old.storage_gib);
    if (record.spec.overlay_gib != old.overlay_gib)
      TRY(image::grow_disk(overlay_path(folder), record.spec.overlay_gib * kGiB));
    if (record.spec.storage_gib != old.storage_gib) {
      if (old.storage_gib == 0)
        return image::make_ext4(storage_path(folder), record.spec.storage_gib * kGiB,
                                "smol-storage");
      TRY(image::grow_disk(storage_path(folder), record.spec.storage_gib * kGiB));
    }
    return {};
  });
}

Result<> Machines::remove(const std::string& name, bool force) {
  TRY_ASSIGN(const Record record,
             claim(name, State::kDeleting, [&](const Record& found) -> Result<> {
               const bool runs = found.state == State::kRunning || found.state == State::kPaused;
               return force && runs ? Result<>{} : must_be_idle(found, "delete it, or give -f");
             }));
  kill_and_wait(record.monitor);
  const std::string folder = machine_folder(name);
  if (!record.sockets.empty() && record.sockets != folder) TRY(remove_tree(record.sockets));
  // The folder goes aside first: until then the machine is whole, from then on it is gone, whoever
  // is killed. No machine's name begins with a dot.
  const std::string aside = fmt::format("{}/machines/.deleted-{}-{}", data_, name, ::getpid());
  if (::rename(folder.c_str(), aside.c_str()) != 0 && errno != ENOENT) {
    const auto failed = fail_errno("cannot remove {}", folder);
    TRY(store_.change(name, [](Record& fresh) -> Result<> {
      set_stopped(fresh, "its deletion failed");
      return {};
    }));
    return failed;
  }
  TRY(store_.remove(name));
  return remove_tree(aside);
}

Result<std::vector<Machines::Garbage>> Machines::garbage() {
  const std::string folder = data_ + "/machines";
  TRY_ASSIGN(const auto names, base::names_in(folder));
  std::vector<Garbage> out;
  for (const std::string& name : names) {
    TRY_ASSIGN(auto record, store_.find(name));
    if (record) {
      TRY_ASSIGN(const bool there, settle(*record));
      if (there) continue;
    }
    const std::string path = folder + "/" + name;
    out.push_back({path, disk_usage(path)});
  }
  return out;
}

}  // namespace smol::machines
