// The configuration blob of machine files in registries.
#include <cstdlib>
#include <string>

#include "image/artifact/chunk_index.h"

extern "C" int LLVMFuzzerTestOneInput(const smol::u8* data, std::size_t size) {
  using smol::image::ChunkIndex;
  static const std::string pieces[] = {"\"version\":1,",
                                       "\"size\":",
                                       "\"chunks\":[",
                                       "]",
                                       ",",
                                       "1",
                                       "20",
                                       "[",
                                       "{",
                                       "}",
                                       "\"signature\":\"a\",",
                                       "\"container_index\":\"QUJD\"",
                                       "\"digest\":\"sha256:" + std::string(64, '0') + "\""};
  std::string text = size > 0 && data[0] % 4 != 0 ? "{\"version\":1," + pieces[12] + "," : "";
  for (std::size_t i = 1; i < size; ++i)
    text += data[i] < 128 ? pieces[data[i] % std::size(pieces)]
                          : std::string(1, static_cast<char>(data[i] - 128));
  const auto index = ChunkIndex::parse(text);
  if (!index) return 0;
  const auto again = ChunkIndex::parse(index->to_json());
  if (!again || again->to_json() != index->to_json()) std::abort();
  return 0;
}
