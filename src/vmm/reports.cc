// What the API asks of a machine's devices: their names, their figures, the power button.
#include <algorithm>

#include "devices/legacy/acpi_pm.h"
#include "vmm/machine.h"

namespace smol::vmm {
namespace {

// Ids of devices that the configuration gives none, after Cloud Hypervisor's habit: "_disk0" by
// kind and number, "__rng" for what there is one of.
struct Kind {
  u32 device_id;  // virtio 1.2, section 5
  const char* id;
  bool numbered;
};
constexpr Kind kKinds[] = {{1, "_net", true},   {2, "_disk", true},      {3, "__console", false},
                           {4, "__rng", false}, {5, "__balloon", false}, {9, "__shares", false},
                           {19, "_vsock", true}};

}  // namespace

std::string Machine::default_id(u32 device_id) const {
  const auto same = std::count_if(virtio_.begin(), virtio_.end(), [&](const auto& transport) {
    return transport->device().device_id() == device_id;
  });
  for (const Kind& kind : kKinds)
    if (kind.device_id == device_id)
      return kind.numbered ? fmt::format("{}{}", kind.id, same) : kind.id;
  return fmt::format("_virtio{}_{}", device_id, same);
}

Result<> Machine::power_button() {
  if (acpi_ == nullptr)
    return fail(
        "this machine has no power button: it was made without ACPI (--tables mp), as our micro "
        "kernel wants it");
  acpi_->press_power_button();
  return {};
}

std::vector<DeviceReport> Machine::device_reports() const {
  std::vector<DeviceReport> reports;
  for (std::size_t i = 0; i < virtio_.size(); ++i) {
    devices::virtio::VirtioDevice& device = virtio_[i]->device();
    const std::string_view name = device.name();  // "virtio-blk PATH"
    const std::lock_guard lock(device.mutex());
    reports.push_back(
        {virtio_ids_[i], std::string(name.substr(0, name.find(' '))), device.counters()});
  }
  return reports;
}

}  // namespace smol::vmm
