#include "image/sbom/rpm.h"

#include <sqlite3.h>

#include <memory>

namespace smol::image {

namespace {

// Tags and types of rpm's include/rpm/rpmtag.h.
constexpr u32 kName = 1000, kVersion = 1001, kRelease = 1002, kEpoch = 1003, kLicense = 1014,
              kArch = 1022;
constexpr u32 kInt32 = 4, kString = 6;
constexpr u64 kEntry = 16;           // bytes of an index entry
constexpr int kMostSteps = 100'000;  // of SQLite's machine, in thousands
constexpr int kMostBlob = 64 << 20;  // bytes; a generated column could be of any size

u32 big_endian(const u8* at) {
  return u32{at[0]} << 24 | u32{at[1]} << 16 | u32{at[2]} << 8 | u32{at[3]};
}

class Header {
 public:
  static std::optional<Header> read(ConstByteSpan bytes) {
    if (bytes.size() < 8) return std::nullopt;
    const u64 entries = big_endian(bytes.data()), size = big_endian(bytes.data() + 4);
    const u64 rest = bytes.size() - 8;
    if (entries > rest / kEntry || size > rest - entries * kEntry) return std::nullopt;
    return Header(bytes.subspan(8, entries * kEntry), bytes.subspan(8 + entries * kEntry, size));
  }

  // Empty when it is not there, of another type, or without an end.
  std::string_view text(u32 tag) const {
    const auto offset = find(tag, kString);
    if (!offset) return {};
    const std::string_view rest(reinterpret_cast<const char*>(data_.data()) + *offset,
                                data_.size() - *offset);
    const std::size_t end = rest.find('\0');
    return end == rest.npos ? std::string_view() : rest.substr(0, end);
  }
  std::optional<u32> number(u32 tag) const {
    const auto offset = find(tag, kInt32);
    if (!offset || data_.size() - *offset < 4) return std::nullopt;
    return big_endian(data_.data() + *offset);
  }

 private:
  Header(ConstByteSpan index, ConstByteSpan data) : index_(index), data_(data) {}
  std::optional<u64> find(u32 tag, u32 type) const {
    for (u64 at = 0; at < index_.size(); at += kEntry) {
      const u8* const entry = index_.data() + at;
      if (big_endian(entry) != tag) continue;
      const u64 offset = big_endian(entry + 8);
      if (big_endian(entry + 4) != type || offset >= data_.size()) return std::nullopt;
      return offset;
    }
    return std::nullopt;
  }

  ConstByteSpan index_, data_;
};

struct CloseDatabase {
  void operator()(sqlite3* database) const { sqlite3_close(database); }
};
using Database = std::unique_ptr<sqlite3, CloseDatabase>;
struct FinishStatement {
  void operator()(sqlite3_stmt* statement) const { sqlite3_finalize(statement); }
};
using Statement = std::unique_ptr<sqlite3_stmt, FinishStatement>;

Error sqlite_error(sqlite3* database, std::string_view what) {
  return Error(fmt::format("{}: {}", what, sqlite3_errmsg(database)));
}

// bytes stay the caller's and must stay.
Result<Database> open_bytes(std::string& bytes) {
  constexpr std::size_t kWriteVersion = 18, kReadVersion = 19;  // www.sqlite.org/fileformat.html
  if (bytes.size() < 100 || !bytes.starts_with("SQLite format 3"))
    return fail("it is no SQLite database");
  // A database with a write-ahead log cannot be opened in memory; without the log it is whole.
  bytes[kWriteVersion] = bytes[kReadVersion] = 1;
  sqlite3* raw = nullptr;
  const int opened = sqlite3_open_v2(":memory:", &raw, SQLITE_OPEN_READWRITE, nullptr);
  Database database(raw);
  if (opened != SQLITE_OK) return std::unexpected(sqlite_error(raw, "cannot make a database"));
  sqlite3_limit(raw, SQLITE_LIMIT_LENGTH, kMostBlob);
  sqlite3_db_config(raw, SQLITE_DBCONFIG_DEFENSIVE, 1, nullptr);
  sqlite3_db_config(raw, SQLITE_DBCONFIG_TRUSTED_SCHEMA, 0, nullptr);
  const auto size = static_cast<sqlite3_int64>(bytes.size());
  if (sqlite3_deserialize(raw, "main", reinterpret_cast<unsigned char*>(bytes.data()), size, size,
                          SQLITE_DESERIALIZE_READONLY) != SQLITE_OK)
    return std::unexpected(sqlite_error(raw, "cannot read the database"));
  return database;
}

Result<Statement> prepare(sqlite3* database, const char* text) {
  sqlite3_stmt* raw = nullptr;
  if (sqlite3_prepare_v2(database, text, -1, &raw, nullptr) != SQLITE_OK)
    return std::unexpected(sqlite_error(database, "cannot read the database"));
  return Statement(raw);
}

}  // namespace

std::optional<Package> parse_rpm_header(ConstByteSpan bytes, std::string_view distribution,
                                        std::string_view found_in) {
  const auto header = Header::read(bytes);
  if (!header) return std::nullopt;
  const std::string_view name = header->text(kName), version = header->text(kVersion);
  // Keys that rpm trusts are kept as packages, too.
  if (name.empty() || version.empty() || name == "gpg-pubkey") return std::nullopt;
  const std::string_view release = header->text(kRelease), arch = header->text(kArch);
  const std::string full =
      release.empty() ? std::string(version) : fmt::format("{}-{}", version, release);
  const auto epoch = header->number(kEpoch);
  std::string qualifiers;
  if (!arch.empty()) qualifiers = "?arch=" + purl_escape(arch);
  if (epoch) qualifiers += fmt::format("{}epoch={}", qualifiers.empty() ? "?" : "&", *epoch);
  return Package{.name = std::string(name),
                 .version = epoch ? fmt::format("{}:{}", *epoch, full) : full,
                 .purl = fmt::format("pkg:rpm/{}{}{}@{}{}", purl_escape(distribution),
                                     distribution.empty() ? "" : "/", purl_escape(name),
                                     purl_escape(full), qualifiers),
                 .license = std::string(header->text(kLicense)),
                 .found_in = std::string(found_in)};
}

Result<std::vector<Package>> parse_rpm(std::string bytes, std::string_view distribution,
                                       std::string_view found_in) {
  TRY_ASSIGN(const Database database, open_bytes(bytes));
  int steps = 0;
  sqlite3_progress_handler(
      database.get(), 1000,
      [](void* count) -> int { return ++*static_cast<int*>(count) > kMostSteps ? 1 : 0; }, &steps);
  // No view, and no table of somebody's module.
  TRY_ASSIGN(const Statement kind,
             prepare(database.get(),
                     "SELECT 1 FROM sqlite_schema WHERE name = 'Packages' AND type = 'table' AND "
                     "rootpage > 0"));
  if (sqlite3_step(kind.get()) != SQLITE_ROW) return fail("it has no table of packages");
  TRY_ASSIGN(const Statement rows, prepare(database.get(), "SELECT blob FROM Packages"));
  std::vector<Package> packages;
  int status = SQLITE_ROW;
  while ((status = sqlite3_step(rows.get())) == SQLITE_ROW) {
    const auto* const blob = static_cast<const u8*>(sqlite3_column_blob(rows.get(), 0));
    const auto size = static_cast<std::size_t>(sqlite3_column_bytes(rows.get(), 0));
    if (blob == nullptr) continue;
    auto package = parse_rpm_header({blob, size}, distribution, found_in);
    if (package) packages.push_back(std::move(*package));
  }
  if (status != SQLITE_DONE)
    return std::unexpected(sqlite_error(database.get(), "the database is damaged"));
  return packages;
}

}  // namespace smol::image
