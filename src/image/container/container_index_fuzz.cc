// The index reader with hostile bytes; what it takes, it writes back as it was.
#include <cstdlib>

#include "image/container/format.h"

extern "C" int LLVMFuzzerTestOneInput(const smol::u8* data, std::size_t size) {
  using namespace smol::image;
  if (size < 4) return 0;
  const smol::u64 end = smol::u64{data[0]} * kAlignment;
  // Mostly with a good beginning, so that the fuzzer reaches the records.
  std::string bytes;
  if (data[1] % 4 != 0) {
    Index index;
    bytes = write_index(index);
    bytes[12] = static_cast<char>(data[2]);  // section_count
  }
  bytes.append(reinterpret_cast<const char*>(data + 3), size - 3);
  const auto index =
      parse_index({reinterpret_cast<const smol::u8*>(bytes.data()), bytes.size()}, end);
  if (index && write_index(*index) != bytes) std::abort();
  return 0;
}
