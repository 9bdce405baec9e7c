// Outside of the fuzz preset a fuzzer runs as an ordinary test: this driver feeds it the files
// named on the command line, or a fixed sequence of generated inputs (SMOL_FUZZ_RUNS of them,
// default 20,000), so that the code under it is driven with hostile bytes in every test run and a
// failure can be repeated.
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <fstream>
#include <iterator>
#include <random>
#include <vector>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size);

namespace {

std::vector<std::uint8_t> generate(std::mt19937_64& random) {
  // Mostly short, sometimes long; bytes biased to the values that parsers stumble over.
  static constexpr std::uint8_t kEdges[] = {0x00, 0x01, 0x7f, 0x80, 0xff};
  std::vector<std::uint8_t> bytes(random() % ((random() % 8 == 0) ? 4096 : 256));
  for (auto& byte : bytes) {
    const std::uint64_t r = random();
    byte = (r & 3) == 0 ? kEdges[(r >> 8) % sizeof(kEdges)] : static_cast<std::uint8_t>(r >> 16);
  }
  return bytes;
}

}  // namespace

int main(int argc, char** argv) {
  for (int i = 1; i < argc; ++i) {
    std::ifstream file(argv[i], std::ios::binary);
    if (!file) {
      std::fprintf(stderr, "%s: cannot open\n", argv[i]);
      return 1;
    }
    const std::vector<char> bytes{std::istreambuf_iterator<char>(file), {}};
    LLVMFuzzerTestOneInput(reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size());
  }
  if (argc > 1) return 0;
  const char* asked = std::getenv("SMOL_FUZZ_RUNS");
  const long runs = asked != nullptr ? std::atol(asked) : 20000;
  std::mt19937_64 random(20241);
  for (long i = 0; i < runs; ++i) {
    const auto bytes = generate(random);
    LLVMFuzzerTestOneInput(bytes.data(), bytes.size());
  }
  std::printf("%ld inputs\n", runs);
  return 0;
}
