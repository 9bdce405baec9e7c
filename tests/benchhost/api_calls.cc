// api_calls SOCKET CALL...: asks a monitor, call by call, and prints each call with its status; for
// hosts that have neither curl nor Python. A CALL is "vm.pause" or "vm.resize={...}"; vm.info,
// vm.counters and vmm.ping are got, the others put. Waits for the socket. Exit status 1: a call was
// refused, its errors on standard error.
#include <unistd.h>

#include <cstdio>
#include <string>
#include <string_view>

#include "client/monitor_client.h"

int main(int argc, char** argv) {
  using namespace smol;
  if (argc < 3) return 2;
  auto client = client::MonitorClient::connect(argv[1]);
  for (int tries = 0; !client && client.error().not_running && tries < 600; ++tries) {
    ::usleep(100'000);
    client = client::MonitorClient::connect(argv[1]);
  }
  if (!client) {
    std::fprintf(stderr, "%s\n", client.error().text().c_str());
    return 1;
  }
  for (int i = 2; i < argc; ++i) {
    const std::string_view word(argv[i]);
    const std::string_view call = word.substr(0, word.find('='));
    const bool got = call == "vm.info" || call == "vm.counters" || call == "vmm.ping";
    const auto reply = got ? client->get(call)
                           : client->put(call, word.substr(std::min(call.size() + 1, word.size())));
    if (!reply) {
      std::fprintf(stderr, "%s\n", reply.error().text().c_str());
      return 1;
    }
    std::printf("%.*s %s\n", static_cast<int>(call.size()), call.data(),
                call == "vmm.ping" ? "" : reply->c_str());
  }
  return 0;
}
