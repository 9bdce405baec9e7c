// Any bytes as a Smolfile, and texts put together from its words: what is refused is refused with a
// place.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "image/smolfile/smolfile.h"

namespace {

void check(bool condition) {
  if (!condition) std::abort();
}

void feed(std::string_view text) {
  const auto read = smol::image::parse_smolfile(text, "F", "/folder");
  if (!read) {
    const std::string said = read.error().chain();
    check(said.starts_with("F:"));
    check(said.size() > 4 && said[2] >= '0' && said[2] <= '9');
    return;
  }
  check(!read->cpus || (*read->cpus >= 1 && *read->cpus <= 32));
  for (const std::string& entry : read->env) check(entry.find('=') != std::string::npos);
  if (!read->build) return;
  const auto& plan = *read->build;
  check(plan.scratch + !plan.base.empty() + !plan.rootfs.empty() + !plan.smolfile.empty() == 1);
  for (const auto& step : plan.steps)
    for (const std::string& source : step.sources)
      check(source[0] != '/' && !source.starts_with("../"));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static constexpr const char* kPieces[] = {
      "\n",         " = ",         "[build]\n", "[[build.step]]\n",
      "base",       "\"scratch\"", "copy",      "[\"a\", \"/b\"]",
      "run",        "\"make\"",    "env",       "[\"A=1\"]",
      "cpus",       "1",           "-1",        "0x7fffffffffffffff",
      "true",       "[",           "]",         "{",
      "}",          ",",           "\"\"",      "'x'",
      "[dev]\n",    "[secrets]\n", "K",         "{from_env=\"A\"}",
      "image",      "volumes",     "memory",    "1e9",
      "\"\"\"",     "#",           "\\u0000",   "\xff",
      "net",        "workdir",     "\"/w\"",    "user",
      "[health]\n", "exec",        "interval",  "\"5s\"",
      "entrypoint", "smolfile",    "rootfs",    "1979-05-27"};
  feed({reinterpret_cast<const char*>(data), size});
  std::string text;
  for (std::size_t i = 0; i < size && i < 512; ++i) text += kPieces[data[i] % std::size(kPieces)];
  feed(text);
  return 0;
}
