// --event-monitor: what happens to the machine, one JSON object a line, as Cloud Hypervisor writes
// it:
//   {"timestamp":{"secs":0,"nanos":7262136},"source":"vm","event":"booted","properties":{...}}
// The time is since the monitor's start. Events: docs/api.md.
#pragma once

#include <initializer_list>
#include <span>
#include <string>
#include <string_view>
#include <utility>

#include "base/fd.h"

namespace smol::vmm {

class EventMonitor {
 public:
  // No events are written.
  EventMonitor();
  // "path=FILE" (appended to, made when missing) or "fd=N" (a descriptor that was handed over).
  static Result<EventMonitor> open(std::string_view text);

  using Property = std::pair<std::string_view, std::string_view>;
  // One write(2) an event; a reader that is gone or a full disk is logged once and ends the events.
  // A pipe that is full makes the caller wait. One thread at a time.
  void tell(std::string_view source, std::string_view event, std::span<const Property> properties);
  void tell(std::string_view source, std::string_view event,
            std::initializer_list<Property> properties = {}) {
    tell(source, event, std::span(properties.begin(), properties.size()));
  }

 private:
  base::UniqueFd fd_;
  u64 started_ns_;
};

}  // namespace smol::vmm
