// WWW-Authenticate (RFC 9110 section 11.6.1), and what a registry asks for with it: Basic, or a
// token of a server that it names (distribution project, "Token Authentication Specification").
#pragma once

#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace smol::image {

struct Challenge {
  std::string scheme;                             // lower case: "bearer", "basic"
  std::map<std::string, std::string> parameters;  // names in lower case
};
// All challenges of one header; what is no challenge ends the list.
std::vector<Challenge> parse_challenges(std::string_view header);

}  // namespace smol::image
