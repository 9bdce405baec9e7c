// rpm's headers, and a database with changed bytes.
#include "image/sbom/rpm.h"
#include "image/sbom/rpm_database.h"

extern "C" int LLVMFuzzerTestOneInput(const smol::u8* data, std::size_t size) {
  using namespace smol;
  using namespace smol::image;
  static const std::string header = rpm_header({rpm_text(1000, "name"),
                                                rpm_text(1001, "1"),
                                                rpm_text(1002, "2"),
                                                {1003, 4, rpm_big_endian(1)},
                                                rpm_text(1022, "arch")});
  static const std::string good = rpm_database({header, header, std::string(9000, 'x')});
  (void)parse_rpm_header({data, size}, "d", "f");
  std::string patched = header, database = good;
  for (std::size_t at = 0; at + 4 <= size && at < 32; at += 4) {
    const u32 where = base::load<u16>(data + at);
    patched[where % patched.size()] = static_cast<char>(data[at + 2]);
    // The schema's page and the table's, most of all their headers.
    const u32 place = data[at + 3] % 2 == 0 ? where % 200 : where;
    database[place % database.size()] = static_cast<char>(data[at + 2]);
  }
  (void)parse_rpm_header({reinterpret_cast<const u8*>(patched.data()), patched.size()}, "d", "f");
  (void)parse_rpm(std::move(database), "d", "f");
  return 0;
}
