// Any words as smolvm's command line: the parser ends with an invocation, help or a usage error,
// and touches nothing. Bytes are words separated by zeros; a first byte below the number of verbs
// puts that verb's words in front, so that options are reached.
#include <cstdlib>
#include <string>
#include <vector>

#include "cli.h"

extern "C" int LLVMFuzzerTestOneInput(const smol::u8* data, std::size_t size) {
  std::vector<std::string> words = {"smolvm"};
  const auto verbs = smolvm::verbs();
  // A dictionary of real spellings, one byte each, between free words: random text alone never
  // meets an option.
  std::size_t at = 0;
  const smolvm::Verb* verb = nullptr;
  if (size > 0) {
    verb = &verbs[data[at++] % verbs.size()];
    for (const std::string_view part : smolvm::split(verb->path, ' ')) words.emplace_back(part);
  }
  while (at < size && words.size() < 64) {
    const smol::u8 choice = data[at++];
    if (choice >= 128 && verb != nullptr && !verb->options.empty()) {
      const auto& part = verb->options[choice % verb->options.size()];
      const auto names = smolvm::split(part[choice / 8 % part.size()].names, ',');
      words.emplace_back(names[choice % names.size()]);
      if ((choice & 1) != 0) words.back() += "=";
    } else if (choice < 4) {
      words.emplace_back("--");
    } else {
      words.emplace_back();
    }
    for (std::size_t n = choice % 16; n > 0 && at < size && data[at] != 0; --n)
      words.back() += static_cast<char>(data[at++]);
  }
  std::vector<const char*> argv;
  for (const std::string& word : words) argv.push_back(word.c_str());
  argv.push_back(nullptr);
  const auto parsed = smolvm::parse(static_cast<int>(words.size()), argv.data());
  if (parsed.invocation) {
    if (parsed.invocation->verb == nullptr || parsed.invocation->verb->run == nullptr) std::abort();
    if (!parsed.invocation->machine() && parsed.invocation->words.empty()) std::abort();
  } else if (parsed.exit_status == 0 ? parsed.out.empty() : !parsed.errors.starts_with("Error: ")) {
    std::abort();
  }
  return 0;
}
