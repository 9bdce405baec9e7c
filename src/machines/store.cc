#include "machines/store.h"

#include <sqlite3.h>
#include <sys/stat.h>
#include <unistd.h>

#include <array>
#include <set>

#include "base/time.h"

namespace smol::machines {
namespace {

constexpr int kSchemaVersion = 1;
constexpr int kBusyMs = 20'000;
constexpr u32 kBusyPauseUs = 5'000;
constexpr const char* kSchema = R"(
CREATE TABLE machines (
  name TEXT PRIMARY KEY NOT NULL,
  spec TEXT NOT NULL,
  state TEXT NOT NULL,
  monitor_pid INTEGER NOT NULL, monitor_mark TEXT NOT NULL,
  worker_pid INTEGER NOT NULL, worker_mark TEXT NOT NULL,
  created_ms INTEGER NOT NULL, started_ms INTEGER NOT NULL, ended_ms INTEGER NOT NULL,
  reason TEXT NOT NULL, sockets TEXT NOT NULL, address TEXT NOT NULL
) STRICT, WITHOUT ROWID;
PRAGMA user_version = 1;
)";
constexpr const char* kColumns =
    "spec, state, monitor_pid, monitor_mark, worker_pid, worker_mark, created_ms, started_ms, "
    "ended_ms, reason, sockets, address";

constexpr std::array<std::pair<State, const char*>, 8> kStates = {{{State::kCreating, "creating"},
                                                                   {State::kCreated, "created"},
                                                                   {State::kStarting, "starting"},
                                                                   {State::kRunning, "running"},
                                                                   {State::kPaused, "paused"},
                                                                   {State::kStopping, "stopping"},
                                                                   {State::kStopped, "stopped"},
                                                                   {State::kDeleting, "deleting"}}};

Result<State> state_of(std::string_view name) {
  for (const auto& [state, text] : kStates)
    if (name == text) return state;
  return fail("unknown state '{}'", name);
}

// One prepared statement: bind in order, step, read columns in order.
class Statement {
 public:
  static Result<Statement> prepare(sqlite3* database, const std::string& sql) {
    sqlite3_stmt* statement = nullptr;
    if (sqlite3_prepare_v2(database, sql.c_str(), -1, &statement, nullptr) != SQLITE_OK)
      return fail("{}", sqlite3_errmsg(database));
    return Statement(database, statement);
  }
  Statement(Statement&& other) noexcept
      : database_(other.database_), statement_(std::exchange(other.statement_, nullptr)) {}
  Statement& operator=(Statement&&) = delete;
  ~Statement() { sqlite3_finalize(statement_); }

  void bind(const std::string& text) {
    sqlite3_bind_text(statement_, ++bound_, text.data(), static_cast<int>(text.size()),
                      SQLITE_TRANSIENT);
  }
  void bind(i64 number) { sqlite3_bind_int64(statement_, ++bound_, number); }
  // True with a row.
  Result<bool> step() {
    read_ = -1;
    const int got = sqlite3_step(statement_);
    if (got == SQLITE_ROW) return true;
    if (got == SQLITE_DONE) return false;
    return fail("{}", sqlite3_errmsg(database_));
  }
  std::string text() {
    const auto* const bytes =
        reinterpret_cast<const char*>(sqlite3_column_text(statement_, ++read_));
    return bytes == nullptr
               ? ""
               : std::string(bytes,
                             static_cast<std::size_t>(sqlite3_column_bytes(statement_, read_)));
  }
  i64 number() { return sqlite3_column_int64(statement_, ++read_); }

 private:
  Statement(sqlite3* database, sqlite3_stmt* statement)
      : database_(database), statement_(statement) {}
  sqlite3* database_;
  sqlite3_stmt* statement_;
  int bound_ = 0, read_ = -1;
};

Result<Record> read_record(Statement& row) {
  Record record;
  TRY_ASSIGN(record.spec, spec_from_json(row.text()));
  TRY_ASSIGN(record.state, state_of(row.text()));
  record.monitor.pid = static_cast<pid_t>(row.number());
  record.monitor.mark = row.text();
  record.worker.pid = static_cast<pid_t>(row.number());
  record.worker.mark = row.text();
  record.created_ms = row.number();
  record.started_ms = row.number();
  record.ended_ms = row.number();
  record.reason = row.text();
  record.sockets = row.text();
  record.address = row.text();
  return record;
}

}  // namespace

const char* name_of(State state) {
  for (const auto& [value, text] : kStates)
    if (value == state) return text;
  return "?";
}

i64 unix_time_ms() { return static_cast<i64>(base::realtime_ns() / 1'000'000); }

void Store::Closer::operator()(sqlite3* database) const { sqlite3_close(database); }

Store::Store(sqlite3* database, std::string path) : database_(database), path_(std::move(path)) {}
Store::Store(Store&&) noexcept = default;
Store& Store::operator=(Store&&) noexcept = default;
Store::~Store() = default;

Result<Store> Store::open(const std::string& path) {
  sqlite3* database = nullptr;
  const mode_t old = ::umask(077);
  const int opened =
      sqlite3_open_v2(path.c_str(), &database,
                      SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_NOMUTEX, nullptr);
  ::umask(old);
  Store store(database, path);
  if (opened != SQLITE_OK)
    return fail("cannot open the database {}: {}", path, sqlite3_errmsg(database));
  sqlite3_extended_result_codes(database, 1);
  sqlite3_busy_timeout(database, kBusyMs);
  if (const auto prepared = store.prepare_schema(); !prepared)
    return wrap(prepared.error(), "cannot use the database {}", path);
  return store;
}

Result<> Store::execute(const char* sql) {
  if (sqlite3_exec(database_.get(), sql, nullptr, nullptr, nullptr) != SQLITE_OK)
    return fail("{}", sqlite3_errmsg(database_.get()));
  return {};
}

// The first use of a new database changes its journal. SQLite answers at once that it is busy,
// without the wait of sqlite3_busy_timeout, when several processes do that at the same time.
Result<> Store::enter_wal() {
  const u64 deadline = base::monotonic_ns() + u64{kBusyMs} * 1'000'000;
  for (;;) {
    const int answer =
        sqlite3_exec(database_.get(), "PRAGMA journal_mode = WAL", nullptr, nullptr, nullptr);
    if (answer == SQLITE_OK) return {};
    if ((answer & 0xff) != SQLITE_BUSY || base::monotonic_ns() > deadline)
      return fail("{}", sqlite3_errmsg(database_.get()));
    ::usleep(kBusyPauseUs);
  }
}

Result<> Store::prepare_schema() {
  const auto version = [this]() -> Result<i64> {
    TRY_ASSIGN(auto statement, Statement::prepare(database_.get(), "PRAGMA user_version"));
    TRY_ASSIGN(const bool row, statement.step());
    return row ? statement.number() : 0;
  };
  const auto refuse_newer = [](i64 found) -> Result<> {
    if (found > kSchemaVersion)
      return fail(
          "it was written by a newer smolvm (its version is {}, this program knows {}); nothing "
          "was changed",
          found, kSchemaVersion);
    return {};
  };
  TRY_ASSIGN(const i64 found, version());
  TRY(refuse_newer(found));
  TRY(enter_wal());
  TRY(execute("PRAGMA synchronous = NORMAL; PRAGMA foreign_keys = ON;"));
  if (found == kSchemaVersion) return {};
  return transaction([&]() -> Result<> {
    TRY_ASSIGN(const i64 now, version());  // another process may have been quicker
    TRY(refuse_newer(now));
    return now == kSchemaVersion ? Result<>{} : execute(kSchema);
  });
}

template <class Body>
Result<> Store::transaction(const Body& body) {
  TRY(execute("BEGIN IMMEDIATE"));
  Result<> done = body();
  if (done) done = execute("COMMIT");
  // What failed inside (a full disk among it) is undone as a whole. SQLite may have done so by
  // itself already.
  if (!done && sqlite3_get_autocommit(database_.get()) == 0) (void)execute("ROLLBACK");
  return done;
}

Result<std::optional<Record>> Store::find(const std::string& name) {
  TRY_ASSIGN(auto row,
             Statement::prepare(database_.get(),
                                fmt::format("SELECT {} FROM machines WHERE name = ?", kColumns)));
  row.bind(name);
  TRY_ASSIGN(const bool there, row.step());
  if (!there) return std::nullopt;
  auto record = read_record(row);
  if (!record) return wrap(record.error(), "cannot read machine '{}' in {}", name, path_);
  return std::optional(std::move(*record));
}

Result<Record> Store::get(const std::string& name) {
  TRY(validate_name(name));
  TRY_ASSIGN(auto record, find(name));
  if (!record) return fail("machine '{}' not found", name);
  return std::move(*record);
}

Result<std::vector<Record>> Store::list() {
  TRY_ASSIGN(auto row,
             Statement::prepare(database_.get(),
                                fmt::format("SELECT {} FROM machines ORDER BY name", kColumns)));
  std::vector<Record> records;
  for (;;) {
    TRY_ASSIGN(const bool there, row.step());
    if (!there) return records;
    auto record = read_record(row);
    if (!record) return wrap(record.error(), "cannot read the machines in {}", path_);
    records.push_back(std::move(*record));
  }
}

Result<> Store::write(const Record& record) {
  TRY_ASSIGN(auto row,
             Statement::prepare(database_.get(),
                                fmt::format("INSERT OR REPLACE INTO machines (name, {}) VALUES "
                                            "(?,?,?,?,?,?,?,?,?,?,?,?,?)",
                                            kColumns)));
  row.bind(record.spec.name);
  row.bind(to_json(record.spec));
  row.bind(std::string(name_of(record.state)));
  row.bind(i64{record.monitor.pid});
  row.bind(record.monitor.mark);
  row.bind(i64{record.worker.pid});
  row.bind(record.worker.mark);
  for (const i64 time : {record.created_ms, record.started_ms, record.ended_ms}) row.bind(time);
  for (const std::string& text : {record.reason, record.sockets, record.address}) row.bind(text);
  TRY_ASSIGN(const bool rows, row.step());
  (void)rows;
  return {};
}

Result<> Store::add(const Record& record, const std::function<bool(const Record&)>& replace) {
  return transaction([&]() -> Result<> {
    TRY_ASSIGN(const auto old, find(record.spec.name));
    if (old && !(replace && replace(*old)))
      return fail("machine '{}' already exists", record.spec.name);
    return write(record);
  });
}

Result<Record> Store::change(const std::string& name,
                             const std::function<Result<>(Record&)>& decide) {
  Record record;
  TRY(transaction([&]() -> Result<> {
    TRY_ASSIGN(record, get(name));
    TRY(decide(record));
    return write(record);
  }));
  return record;
}

Result<> Store::remove(const std::string& name) {
  TRY_ASSIGN(auto row, Statement::prepare(database_.get(), "DELETE FROM machines WHERE name = ?"));
  row.bind(name);
  TRY_ASSIGN(const bool rows, row.step());
  (void)rows;
  return {};
}

Result<std::string> Store::take_address(const std::string& machine) {
  TRY_ASSIGN(const Record kept, change(machine, [this](Record& fresh) -> Result<> {
               TRY_ASSIGN(fresh.address, free_address(fresh));
               return {};
             }));
  return kept.address;
}

Result<std::string> Store::free_address(const Record& machine) {
  const std::string& segment = machine.spec.network.segment;
  TRY_ASSIGN(const auto records, list());
  std::set<std::string> taken;
  for (const Record& record : records)
    if (record.spec.network.segment == segment && record.spec.name != machine.spec.name)
      taken.insert(record.address);
  if (!machine.address.empty() && !taken.contains(machine.address)) return machine.address;
  // 10.88.0.1 is the segment's DNS and .255.255 its broadcast.
  for (u32 host = 2; host < 0xffff; ++host)
    if (const std::string address = fmt::format("10.88.{}.{}", host >> 8, host & 0xff);
        !taken.contains(address))
      return address;
  return fail("network '{}' has no free address", segment);
}

}  // namespace smol::machines
