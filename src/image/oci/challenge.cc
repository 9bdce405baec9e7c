#include "image/oci/challenge.h"

namespace smol::image {
namespace {

bool is_token(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9') ||
         std::string_view("!#$%&'*+-.^_`|~").find(c) != std::string_view::npos;
}

class Scanner {
 public:
  explicit Scanner(std::string_view text) : text_(text) {}

  void skip(std::string_view what) {
    while (at_ < text_.size() && what.find(text_[at_]) != std::string_view::npos) ++at_;
  }
  std::string token() {
    std::string token;
    for (; at_ < text_.size() && is_token(text_[at_]); ++at_) {
      const char c = text_[at_];
      token += c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    }
    return token;
  }
  bool take(char c) {
    if (at_ >= text_.size() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  // A token as it stands, or a quoted string.
  std::string value() {
    std::string value;
    if (!take('"')) {
      for (; at_ < text_.size() && is_token(text_[at_]); ++at_) value += text_[at_];
      return value;
    }
    for (; at_ < text_.size() && text_[at_] != '"'; ++at_) {
      if (text_[at_] == '\\' && at_ + 1 < text_.size()) ++at_;
      value += text_[at_];
    }
    take('"');
    return value;
  }
  std::size_t place() const { return at_; }
  void go_back(std::size_t place) { at_ = place; }
  bool ended() const { return at_ >= text_.size(); }

 private:
  std::string_view text_;
  std::size_t at_ = 0;
};

}  // namespace

std::vector<Challenge> parse_challenges(std::string_view header) {
  std::vector<Challenge> challenges;
  Scanner scanner(header);
  for (;;) {
    scanner.skip(" \t,");
    Challenge challenge;
    challenge.scheme = scanner.token();
    if (challenge.scheme.empty()) return challenges;
    for (;;) {
      scanner.skip(" \t,");
      const std::size_t before = scanner.place();
      const std::string name = scanner.token();
      scanner.skip(" \t");
      if (name.empty() || !scanner.take('=')) {  // the next challenge's scheme
        scanner.go_back(before);
        break;
      }
      scanner.skip(" \t");
      challenge.parameters[name] = scanner.value();
    }
    challenges.push_back(std::move(challenge));
  }
}

}  // namespace smol::image
