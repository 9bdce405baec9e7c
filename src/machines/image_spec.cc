#include "machines/image_spec.h"

#include <signal.h>

#include <charconv>
#include <cstring>
#include <tuple>

namespace smol::machines {
namespace {

constexpr int kMostSignal = 64;

std::optional<int> number_of(std::string_view text) {
  int value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < 0) return std::nullopt;
  return value;
}

}  // namespace

std::optional<int> signal_number(std::string_view text) {
  const auto plain = number_of(text);
  if (plain) return *plain >= 1 && *plain <= kMostSignal ? plain : std::nullopt;
  if (text.starts_with("SIG")) text.remove_prefix(3);
  for (const auto& [name, base, sign] :
       {std::tuple<std::string_view, int, int>{"RTMIN", 34, 1}, {"RTMAX", 64, -1}}) {
    if (!text.starts_with(name)) continue;
    if (text == name) return base;
    const auto more = number_of(text.substr(name.size() + 1));
    if (text[name.size()] != (sign > 0 ? '+' : '-') || !more || *more > 30) return std::nullopt;
    return base + sign * *more;
  }
  for (int number = 1; number < 32; ++number)
    if (const char* const name = ::sigabbrev_np(number); name != nullptr && text == name)
      return number;
  return std::nullopt;
}

Words program_words(const ProgramChoice& choice, const Words& entrypoint, const Words& command) {
  Words out = choice.entrypoint.value_or(entrypoint);
  const Words& rest = !choice.words.empty() ? choice.words
                      : choice.command      ? *choice.command
                      : choice.entrypoint   ? Words{}
                                            : command;
  out.insert(out.end(), rest.begin(), rest.end());
  return out;
}

}  // namespace smol::machines
