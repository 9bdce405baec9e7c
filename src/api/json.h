// The API's JSON, both ways. Reading is strict: a member that is unknown, doubled, missing or of
// another type or range is refused with its path ("disks[0].path"). Any bytes may come in; at most
// kMaxBody of them are looked at, nested at most kMaxDepth deep.
#pragma once

#include <string_view>

#include "api/answer.h"
#include "api/error.h"
#include "api/request.h"

namespace smol::api {

inline constexpr std::size_t kMaxBody = 1 * kMiB;
inline constexpr u32 kMaxDepth = 32;

// method: "GET" or "PUT" as it came; path: with the prefix /api/v1; fds: came beside the request,
// closed when the request has no use for them.
Outcome<Request> parse_request(std::string_view method, std::string_view path,
                               std::string_view body, std::vector<base::UniqueFd> fds = {});
Outcome<VmConfig> parse_vm_config(std::string_view text);

// Empty for NoContent.
std::string to_json(const Answer& answer);
std::string to_json(const VmConfig& config);
std::string to_json(const ApiError& error);  // an array of strings
std::string to_json(const ShareConfig& share);
std::string to_json(const VmResize& request);
std::string to_json(const VmResizeDisk& request);
std::string to_json(const VmRemoveDevice& request);

// A string as JSON; bytes that are no UTF-8 are replaced.
std::string quote(std::string_view text);

// The client's side: what a monitor answered.
Result<Ping> parse_ping(std::string_view text);
Result<VmInfo> parse_vm_info(std::string_view text);
Result<Counters> parse_counters(std::string_view text);
// The array of strings; what is no such array is one sentence itself.
std::vector<std::string> parse_error_chain(std::string_view text);

}  // namespace smol::api
