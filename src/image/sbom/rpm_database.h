// rpm databases for tests and the fuzzer.
#pragma once

#include <sqlite3.h>

#include <string>
#include <vector>

#include "base/bytes.h"

namespace smol::image {

inline std::string rpm_big_endian(u32 value) {
  return {static_cast<char>(value >> 24), static_cast<char>(value >> 16),
          static_cast<char>(value >> 8), static_cast<char>(value)};
}

struct RpmEntry {
  u32 tag = 0, type = 0;
  std::string data;  // as it is stored: a string with its zero byte
};

inline RpmEntry rpm_text(u32 tag, const std::string& text) { return {tag, 6, text + '\0'}; }

inline std::string rpm_header(const std::vector<RpmEntry>& entries) {
  std::string index, data;
  for (const RpmEntry& entry : entries) {
    index += rpm_big_endian(entry.tag) + rpm_big_endian(entry.type) +
             rpm_big_endian(static_cast<u32>(data.size())) + rpm_big_endian(1);
    data += entry.data;
  }
  return rpm_big_endian(static_cast<u32>(entries.size())) +
         rpm_big_endian(static_cast<u32>(data.size())) + index + data;
}

// The file of an rpmdb.sqlite with these headers, marked as rpm's are: with a write-ahead log.
inline std::string rpm_database(const std::vector<std::string>& headers,
                                const char* schema =
                                    "CREATE TABLE Packages (hnum INTEGER PRIMARY KEY "
                                    "AUTOINCREMENT, blob BLOB NOT NULL)") {
  sqlite3* database = nullptr;
  sqlite3_open(":memory:", &database);
  sqlite3_exec(database, schema, nullptr, nullptr, nullptr);
  for (const std::string& header : headers) {
    sqlite3_stmt* row = nullptr;
    sqlite3_prepare_v2(database, "INSERT INTO Packages (blob) VALUES (?)", -1, &row, nullptr);
    sqlite3_bind_blob(row, 1, header.data(), static_cast<int>(header.size()), SQLITE_STATIC);
    sqlite3_step(row);
    sqlite3_finalize(row);
  }
  sqlite3_int64 size = 0;
  unsigned char* const bytes = sqlite3_serialize(database, "main", &size, 0);
  std::string file(reinterpret_cast<char*>(bytes), static_cast<std::size_t>(size));
  sqlite3_free(bytes);
  sqlite3_close(database);
  file[18] = file[19] = 2;
  return file;
}

}  // namespace smol::image
