#include "data_runner.h"

#include <charconv>
#include <sstream>

#include "base/fd.h"

namespace smol::isa {
namespace {

constexpr std::string_view kGprNames[16] = {"rax", "rcx", "rdx", "rbx", "rsp", "rbp", "rsi", "rdi",
                                            "r8",  "r9",  "r10", "r11", "r12", "r13", "r14", "r15"};
struct FlagName {
  std::string_view name;
  u64 bit;
};
constexpr FlagName kFlagNames[] = {{"cf", 1},    {"pf", 4},    {"af", 0x10},
                                   {"zf", 0x40}, {"sf", 0x80}, {"of", 0x800}};
constexpr u64 kSixFlags = 0x8d5;

struct Place {
  u8* at;
  unsigned size;
};

// The bytes of a named register, or nullptr.
Place place_of(UserState& s, std::string_view name) {
  for (unsigned r = 0; r < 16; ++r)
    if (name == kGprNames[r]) return {reinterpret_cast<u8*>(&s.gpr[r]), 8};
  const auto number = [&](std::string_view stem, unsigned limit) -> int {
    if (!name.starts_with(stem)) return -1;
    unsigned n = 99;
    const auto rest = name.substr(stem.size());
    const auto [end, error] = std::from_chars(rest.data(), rest.data() + rest.size(), n);
    return error == std::errc{} && end == rest.data() + rest.size() && n < limit
               ? static_cast<int>(n)
               : -1;
  };
  if (const int n = number("xmm", 16); n >= 0) return {s.xmm(static_cast<unsigned>(n)), 16};
  if (const int n = number("st", 8); n >= 0) return {s.st(static_cast<unsigned>(n)), 10};
  if (name == "rip") return {reinterpret_cast<u8*>(&s.rip), 8};
  if (name == "fcw") return {s.fx, 2};
  if (name == "fsw") return {s.fx + 2, 2};
  if (name == "tags") return {s.fx + 4, 1};
  if (name == "mxcsr") return {s.fx + 24, 4};
  return {nullptr, 0};
}

int digit(char c) {
  return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

Result<u64> flags_of(std::string_view text) {
  u64 bits = 0;
  while (!text.empty() && text != "none") {
    const size_t comma = text.find(',');
    const std::string_view one = text.substr(0, comma);
    bool found = false;
    for (const FlagName& flag : kFlagNames)
      if (flag.name == one) bits |= flag.bit, found = true;
    if (!found) return fail("unknown flag '{}'", one);
    text = comma == std::string_view::npos ? std::string_view{} : text.substr(comma + 1);
  }
  return bits;
}

Result<std::vector<u8>> bytes_of(std::istringstream& line) {
  std::vector<u8> bytes;
  std::string word;
  while (line >> word) {
    if (word.size() != 2 || digit(word[0]) < 0 || digit(word[1]) < 0)
      return fail("'{}' is not a byte", word);
    bytes.push_back(static_cast<u8>(digit(word[0]) << 4 | digit(word[1])));
  }
  return bytes;
}

Result<u64> hex_number(std::string_view text) {
  u64 value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value, 16);
  if (error != std::errc{} || end != text.data() + text.size())
    return fail("'{}' is not a hexadecimal number", text);
  return value;
}

Result<std::pair<std::string, std::string>> assignment(const std::string& word) {
  const size_t equals = word.find('=');
  if (equals == std::string::npos) return fail("'{}' is not name=value", word);
  return std::pair{word.substr(0, equals), word.substr(equals + 1)};
}

Result<> memory_line(std::istringstream& line, std::vector<std::pair<u64, std::vector<u8>>>& into) {
  std::string address, equals;
  line >> address >> equals;
  if (equals != "=") return fail("expected ADDRESS = BYTES");
  TRY_ASSIGN(const u64 at, hex_number(address));
  TRY_ASSIGN(auto bytes, bytes_of(line));
  if (at < kData || at + bytes.size() > kData + kDataSize)
    return fail("{} lies outside of the data pages", address);
  into.emplace_back(at, std::move(bytes));
  return {};
}

Result<> fault_line(std::istringstream& line, DataTest& test) {
  unsigned vector = 256;
  line >> vector;
  if (vector > 255) return fail("expected an exception vector");
  test.vector = static_cast<u8>(vector);
  std::string word;
  while (line >> word) {
    TRY_ASSIGN(const auto pair, assignment(word));
    TRY_ASSIGN(const u64 value, hex_number(pair.second));
    if (pair.first == "error") {
      test.checks_error = true;
      test.error_code = static_cast<u32>(value);
    } else if (pair.first == "address") {
      test.checks_address = true;
      test.address = value;
    } else {
      return fail("unknown '{}'", pair.first);
    }
  }
  return {};
}

Result<> parse_line(const std::string& text, DataTest& test) {
  std::istringstream line(text);
  std::string keyword, word;
  line >> keyword;
  if (keyword == "code") {
    TRY_ASSIGN(const auto bytes, bytes_of(line));
    test.code.insert(test.code.end(), bytes.begin(), bytes.end());
    return {};
  }
  if (keyword == "memory") return memory_line(line, test.memory);
  if (keyword == "expect") return memory_line(line, test.expect);
  if (keyword == "bits") {
    line >> word;
    if (word != "32" && word != "64") return fail("bits are 32 or 64, not '{}'", word);
    test.in.cs = word == "32" ? kCode32 : kCode64;
    return {};
  }
  if (keyword == "ignore") {
    line >> word;
    TRY_ASSIGN(test.ignored_flags, flags_of(word));
    return {};
  }
  if (keyword == "fault") return fault_line(line, test);
  if (keyword != "in" && keyword != "out") return fail("unknown keyword '{}'", keyword);
  while (line >> word) {
    TRY_ASSIGN(const auto pair, assignment(word));
    if (keyword == "in") {
      TRY(set_register(test.in, pair.first, pair.second));
    } else {
      TRY_ASSIGN(auto value, normalize(pair.first, pair.second));
      test.out.emplace_back(pair.first, std::move(value));
    }
  }
  return {};
}

}  // namespace

Result<> set_register(UserState& state, std::string_view name, std::string_view value) {
  if (name == "flags") {
    TRY_ASSIGN(const u64 bits, flags_of(value));
    state.rflags = (state.rflags & ~kSixFlags) | bits;
    return {};
  }
  const Place place = place_of(state, name);
  if (place.at == nullptr) return fail("unknown register '{}'", name);
  if (value.empty() || value.size() > 2 * place.size)
    return fail("'{}' does not fit {}", value, name);
  std::memset(place.at, 0, place.size);
  unsigned nibble = 0;
  for (size_t i = value.size(); i-- > 0; ++nibble) {
    const int d = digit(value[i]);
    if (d < 0) return fail("'{}' is not a hexadecimal number", value);
    place.at[nibble / 2] |= static_cast<u8>(d << (4 * (nibble & 1)));
  }
  return {};
}

Result<std::string> get_register(const UserState& state, std::string_view name) {
  if (name == "flags") {
    std::string out;
    for (const FlagName& flag : kFlagNames)
      if ((state.rflags & flag.bit) != 0) out += (out.empty() ? "" : ",") + std::string(flag.name);
    return out.empty() ? "none" : out;
  }
  UserState copy = state;
  const Place place = place_of(copy, name);
  if (place.at == nullptr) return fail("unknown register '{}'", name);
  std::string out;
  for (unsigned i = place.size; i-- > 0;) out += fmt::format("{:02x}", place.at[i]);
  return out;
}

Result<std::string> normalize(std::string_view name, std::string_view value) {
  UserState state;
  TRY(set_register(state, name, value));
  return get_register(state, name);
}

std::string failures(const DataTest& test, const Outcome& outcome, const u8* data) {
  if (!outcome.ended) return "  did not end\n";
  std::string out;
  const auto check = [&](std::string_view what, u64 got, u64 wanted) {
    if (got != wanted) out += fmt::format("  {}: {:x}, wanted {:x}\n", what, got, wanted);
  };
  check("exception", outcome.vector, test.vector);
  if (test.vector == 3) check("rip", outcome.state.rip, kCodePage + test.code.size() + 1);
  if (test.checks_error) check("error code", outcome.error_code, test.error_code);
  if (test.checks_address) check("address", outcome.address, test.address);
  UserState state = outcome.state;
  state.rflags &= ~test.ignored_flags;
  for (const auto& [name, value] : test.out) {
    const std::string got = get_register(state, name).value();
    if (got != value) out += fmt::format("  {}: {}, wanted {}\n", name, got, value);
  }
  for (const auto& [at, bytes] : test.expect)
    for (size_t i = 0; i < bytes.size(); ++i)
      check(fmt::format("memory {:x}", at + i), data[at - kData + i], bytes[i]);
  return out;
}

Result<std::vector<DataTest>> load_data_tests(const std::string& path) {
  TRY_ASSIGN(const std::string text, base::read_text_file(path));
  std::istringstream lines(text);
  std::vector<DataTest> tests;
  std::string line;
  for (unsigned number = 1; std::getline(lines, line); ++number) {
    if (const size_t comment = line.find('#'); comment != std::string::npos) line.resize(comment);
    if (line.find_first_not_of(" \t\r") == std::string::npos) continue;
    if (line.starts_with("test ")) {
      tests.emplace_back();
      tests.back().name = line.substr(5);
      tests.back().place = fmt::format("{}:{}", path.substr(path.rfind('/') + 1), number);
      tests.back().in.gpr[4] = kData + 0x2000;
      continue;
    }
    if (tests.empty()) return fail("{}:{}: a line before the first test", path, number);
    if (const auto parsed = parse_line(line, tests.back()); !parsed)
      return wrap(parsed.error(), "{}:{}", path, number);
  }
  return tests;
}

}  // namespace smol::isa
