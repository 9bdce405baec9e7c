// What each request does, and when it may.
#include <unistd.h>

#include <algorithm>

#include "base/log.h"
#include "base/time.h"
#include "vmm/api_config.h"
#include "vmm/controller.h"

namespace smol::vmm {

using api::ErrorKind;
using api::refuse;
using api::VmState;

namespace {

std::unexpected<api::ApiError> failed(ErrorKind kind, const Error& error) {
  return std::unexpected(api::ApiError::from(kind, error));
}

api::Outcome<api::Answer> done() { return api::Answer(api::NoContent{}); }

// The position of the device with this id among those of its kind; `id` of each by `id_of`, or by
// its place ("_disk0") when that is empty.
template <class Devices, class IdOf>
std::optional<std::size_t> find_id(const Devices& devices, std::string_view prefix,
                                   const std::string& id, IdOf id_of) {
  for (std::size_t i = 0; i < devices.size(); ++i) {
    const std::string given = id_of(devices[i]);
    if ((given.empty() ? fmt::format("{}{}", prefix, i) : given) == id) return i;
  }
  return std::nullopt;
}

template <class T>
void erase_at(std::vector<T>& values, std::size_t index) {
  values.erase(values.begin() + static_cast<std::ptrdiff_t>(index));
}

}  // namespace

api::Outcome<> Controller::need_created(std::string_view call) const {
  if (!config_) return refuse(ErrorKind::kNotFound, "{}: no machine was created (vm.create)", call);
  return {};
}

api::Outcome<> Controller::need_state(std::string_view call,
                                      std::initializer_list<VmState> states) const {
  TRY(need_created(call));
  if (std::find(states.begin(), states.end(), state_) != states.end()) return {};
  std::string wanted;
  for (const VmState state : states)
    wanted += (wanted.empty() ? "" : " or ") + std::string(api::name_of(state));
  return refuse(ErrorKind::kConflict, "{}: the machine is {}, it must be {}", call,
                api::name_of(state_), wanted);
}

api::Outcome<> Controller::need_cold(std::string_view call, std::string_view what) const {
  TRY(need_created(call));
  if (state_ == VmState::kCreated || state_ == VmState::kShutdown) return {};
  return refuse(ErrorKind::kConflict,
                "{}: the machine is {}: {} cannot be added or removed while it runs (there is no "
                "hot plug yet)",
                call, api::name_of(state_), what);
}

api::Outcome<api::Answer> Controller::execute(api::Request& request) {
  return std::visit([this](auto& one) { return execute(one); }, request);
}

Controller::Outcome Controller::execute(api::VmmPing&) {
  api::Ping ping{.build_version = "v" SMOL_VERSION,
                 .version = SMOL_VERSION,
                 .pid = pid_,
                 .features = {"soft"}};
  if (::access("/dev/kvm", R_OK | W_OK) == 0) ping.features.emplace_back("kvm");
  return api::Answer(std::move(ping));
}

Controller::Outcome Controller::execute(api::VmmShutdown&) {
  exit_status_ = 0;
  return done();
}

Controller::Outcome Controller::execute(api::VmGetInfo&) {
  TRY(need_created("vm.info"));
  api::VmInfo info;
  info.config = shown_;
  info.state = state_;
  info.memory_actual_size =
      machine_ != nullptr ? machine_->memory_actual_size() : config_->memory_size;
  if (machine_ != nullptr)
    for (const DeviceReport& device : machine_->device_reports())
      info.device_tree[device.id] = {device.id, device.kind};
  return api::Answer(std::move(info));
}

Controller::Outcome Controller::execute(api::VmGetCounters&) {
  TRY(need_state("vm.counters", {VmState::kRunning, VmState::kPaused}));
  api::Counters counters;
  machine_->ask_guest_memory();
  for (const DeviceReport& device : machine_->device_reports())
    for (const auto& counter : device.counters)
      counters[device.id][std::string(counter.name)] = counter.value;
  const Stats stats = machine_->stats();
  auto& vcpus = counters["__vcpus"];
  for (std::size_t kind = 0; kind < std::size(stats.exits); ++kind) {
    std::string name = fmt::format("exits_{}", hypervisor::exit_name(kind));
    std::replace(name.begin(), name.end(), '-', '_');
    vcpus[name] = stats.exits[kind];
  }
  // The software CPU counts them; hardware does not.
  if (stats.instructions != 0) {
    vcpus["instructions"] = stats.instructions;
    vcpus["code_cache_bytes"] = stats.code_cache.bytes;
    vcpus["code_cache_trims"] = stats.code_cache.trims;
  }
  return api::Answer(std::move(counters));
}

Controller::Outcome Controller::execute(api::VmCreate& request) {
  if (config_)
    return refuse(ErrorKind::kConflict,
                  "vm.create: there is a machine already ({}); vm.delete first",
                  api::name_of(state_));
  auto config = machine_config(request.config, options_.base);
  if (!config) return failed(ErrorKind::kBadRequest, config.error());
  config_ = std::move(*config);
  shown_ = std::move(request.config);
  // What was left to us is shown as it is.
  const api::VmConfig whole = api_config(*config_);
  if (!shown_.cpus) shown_.cpus = whole.cpus;
  if (!shown_.memory) shown_.memory = whole.memory;
  if (!shown_.rng) shown_.rng = whole.rng;
  if (!shown_.serial) shown_.serial = whole.serial;
  if (!shown_.console) shown_.console = whole.console;
  state_ = VmState::kCreated;
  events_.tell("vm", "created");
  return done();
}

Controller::Outcome Controller::execute(api::VmDelete&) {
  if (!config_) return done();
  end_machine();
  config_.reset();
  shown_ = {};
  fds_.clear();
  events_.tell("vm", "deleted");
  return done();
}

Controller::Outcome Controller::execute(api::VmBoot&) {
  TRY(need_state("vm.boot", {VmState::kCreated, VmState::kShutdown}));
  config_->started_at = base::monotonic_ns();
  if (const auto booted = boot(); !booted)
    return failed(ErrorKind::kInternal,
                  Error("vm.boot: the machine cannot boot").because_of(booted.error()));
  return done();
}

Controller::Outcome Controller::execute(api::VmPause&) {
  TRY(need_state("vm.pause", {VmState::kRunning}));
  events_.tell("vm", "pausing");
  if (const auto paused = machine_->pause(); !paused)
    return failed(ErrorKind::kConflict, Error("vm.pause").because_of(paused.error()));
  state_ = VmState::kPaused;
  events_.tell("vm", "paused");
  return done();
}

Controller::Outcome Controller::execute(api::VmResume&) {
  TRY(need_state("vm.resume", {VmState::kPaused}));
  events_.tell("vm", "resuming");
  if (const auto resumed = machine_->resume(); !resumed)
    return failed(ErrorKind::kConflict, Error("vm.resume").because_of(resumed.error()));
  state_ = VmState::kRunning;
  events_.tell("vm", "resumed");
  return done();
}

Controller::Outcome Controller::execute(api::VmShutdown&) {
  TRY(need_state("vm.shutdown", {VmState::kRunning, VmState::kPaused}));
  end_machine();
  return done();
}

Controller::Outcome Controller::execute(api::VmReboot&) {
  TRY(need_state("vm.reboot", {VmState::kRunning, VmState::kPaused}));
  if (const auto booted = reboot(); !booted)
    return failed(ErrorKind::kInternal,
                  Error("vm.reboot: the machine cannot boot").because_of(booted.error()));
  return done();
}

Controller::Outcome Controller::execute(api::VmPowerButton&) {
  TRY(need_state("vm.power-button", {VmState::kRunning}));
  if (const auto pressed = machine_->power_button(); !pressed)
    return failed(ErrorKind::kBadRequest, Error("vm.power-button").because_of(pressed.error()));
  return done();
}

Controller::Outcome Controller::execute(api::VmNmi&) {
  TRY(need_state("vm.nmi", {VmState::kRunning}));
  if (const auto sent = machine_->nmi(); !sent)
    return failed(ErrorKind::kInternal, Error("vm.nmi").because_of(sent.error()));
  return done();
}

Controller::Outcome Controller::execute(api::VmResize& request) {
  TRY(need_state("vm.resize", {VmState::kRunning, VmState::kPaused}));
  if (request.desired_vcpus && *request.desired_vcpus != config_->cpus)
    return refuse(
        ErrorKind::kBadRequest,
        "vm.resize: the machine has {} CPUs; CPUs cannot be added or removed while it runs",
        config_->cpus);
  if (request.desired_ram && *request.desired_ram != config_->memory_size)
    return refuse(ErrorKind::kBadRequest,
                  "vm.resize: the machine has {} bytes of memory; that cannot be changed while it "
                  "runs (a balloon can: desired_balloon)",
                  config_->memory_size);
  if (!request.desired_balloon) return done();
  if (const auto set = machine_->set_balloon(*request.desired_balloon); !set)
    return failed(ErrorKind::kBadRequest, Error("vm.resize").because_of(set.error()));
  config_->balloon->size = *request.desired_balloon;
  if (!shown_.balloon) shown_.balloon.emplace();
  shown_.balloon->size = *request.desired_balloon;
  return done();
}

Controller::Outcome Controller::execute(api::VmResizeDisk& request) {
  TRY(need_state("vm.resize-disk", {VmState::kRunning, VmState::kPaused}));
  if (!find_disk(request.id))
    return refuse(ErrorKind::kNotFound, "vm.resize-disk: there is no disk {}", request.id);
  const auto resized = machine_->resize_disk(request.id, request.desired_size);
  // With an errno it is the host's (a full disk), without one the request's (smaller, not whole
  // sectors).
  if (!resized)
    return failed(
        resized.error().error_number() != 0 ? ErrorKind::kInternal : ErrorKind::kBadRequest,
        Error("vm.resize-disk").because_of(resized.error()));
  return done();
}

Controller::Outcome Controller::execute(api::VmAddDisk& request) {
  TRY(need_cold("vm.add-disk", "disks"));
  auto disk = disk_config(request.disk);
  if (!disk) return failed(ErrorKind::kBadRequest, disk.error());
  config_->disks.push_back(std::move(*disk));
  shown_.disks.push_back(std::move(request.disk));
  return done();
}

Controller::Outcome Controller::execute(api::VmAddNet& request) {
  TRY(need_cold("vm.add-net", "network devices"));
  std::vector<int> numbers;  // of a TAP, one for each of its queues
  for (const auto& fd : request.fds) numbers.push_back(fd.get());
  auto net = net_config(request.net, numbers);
  if (!net) return failed(ErrorKind::kBadRequest, net.error());
  config_->nets.push_back(std::move(*net));
  shown_.net.push_back(std::move(request.net));
  for (auto& fd : request.fds) fds_.push_back(std::move(fd));
  return done();
}

Controller::Outcome Controller::execute(api::VmAddVsock& request) {
  TRY(need_cold("vm.add-vsock", "a socket device"));
  if (config_->vsock)
    return refuse(ErrorKind::kConflict, "vm.add-vsock: the machine has a socket device already");
  MachineConfig with = *config_;
  auto vsock = vsock_config(request.vsock);
  if (!vsock) return failed(ErrorKind::kBadRequest, vsock.error());
  with.vsock = std::move(*vsock);
  if (const auto valid = validate(with); !valid)
    return failed(ErrorKind::kBadRequest, valid.error());
  config_ = std::move(with);
  shown_.vsock = std::move(request.vsock);
  return done();
}

// The one device that takes more while the machine runs: all shares are one 9P device's.
Controller::Outcome Controller::execute(api::VmAddShare& request) {
  TRY(need_created("vm.add-share"));
  const bool known =
      std::any_of(config_->shares.begin(), config_->shares.end(),
                  [&](const ShareConfig& share) { return share.tag == request.share.tag; });
  if (known)
    return refuse(ErrorKind::kConflict, "vm.add-share: there is a share {} already",
                  request.share.tag);
  const ShareConfig share = share_config(request.share);
  MachineConfig with = *config_;
  with.shares.push_back(share);
  with.share_device = true;
  if (const auto valid = validate(with); !valid)
    return failed(ErrorKind::kBadRequest, valid.error());
  if (machine_ != nullptr) {
    if (!config_->share_device && config_->shares.empty())
      return refuse(ErrorKind::kConflict,
                    "vm.add-share: the machine was started without the device for shares (--share "
                    "on, or \"shares\": [])");
    if (const auto added = machine_->add_share(share); !added)
      return failed(ErrorKind::kBadRequest, Error("vm.add-share").because_of(added.error()));
  }
  config_ = std::move(with);
  if (!shown_.shares) shown_.shares.emplace();
  shown_.shares->push_back(std::move(request.share));
  return done();
}

Controller::Outcome Controller::execute(api::VmRemoveDevice& request) {
  TRY(need_created("vm.remove-device"));
  const auto share =
      find_id(config_->shares, "", request.id, [](const ShareConfig& one) { return one.tag; });
  if (share) {
    if (machine_ != nullptr)
      if (const auto removed = machine_->remove_share(request.id); !removed)
        return failed(ErrorKind::kInternal, Error("vm.remove-device").because_of(removed.error()));
    config_->share_device = true;  // it stays, for others
    erase_at(config_->shares, *share);
    std::erase_if(*shown_.shares,
                  [&](const api::ShareConfig& one) { return one.tag == request.id; });
    return done();
  }
  return remove_from_config(request.id);
}

std::optional<std::size_t> Controller::find_disk(const std::string& id) const {
  return find_id(shown_.disks, "_disk", id,
                 [](const api::DiskConfig& one) { return one.id.value_or(""); });
}

Controller::Outcome Controller::remove_from_config(const std::string& id) {
  const auto disk = find_disk(id);
  const auto net = find_id(shown_.net, "_net", id,
                           [](const api::NetConfig& one) { return one.id.value_or(""); });
  const bool vsock =
      config_->vsock && (shown_.vsock && shown_.vsock->id ? *shown_.vsock->id : "_vsock0") == id;
  if (!disk && !net && !vsock)
    return refuse(ErrorKind::kNotFound, "vm.remove-device: there is no device {}", id);
  TRY(need_cold("vm.remove-device", fmt::format("the device {}", id)));
  if (disk) {
    erase_at(config_->disks, *disk);
    erase_at(shown_.disks, *disk);
  } else if (net) {
    erase_at(config_->nets, *net);
    erase_at(shown_.net, *net);
  } else {
    config_->vsock.reset();
    shown_.vsock.reset();
  }
  return done();
}

Controller::Outcome Controller::execute(api::NotSupported& request) {
  return refuse(ErrorKind::kBadRequest, "{} is not supported by this monitor yet", request.call);
}

}  // namespace smol::vmm
