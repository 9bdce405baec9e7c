// What a machine's guest is told before its programs start: root, network, mounts, secrets,
// services; as SETUP frames.
//
// Everything here goes over vsock into the guest's memory: nothing of it is seen on a command line
// or on a disk of the host. Strings come from users: each is checked for what the wire cannot
// carry, and an Error names it.
#pragma once

#include <string>
#include <vector>

#include "machines/frames.h"

namespace smol::machines {

struct GuestRoot {
  u32 kind = 0;  // enum smol_root_kind
  std::string device,
      type;  // "/dev/vda"; type "" : found by the guest. With an overlay: "" : the initramfs
  std::string upper_device, upper_type;  // with an overlay: what takes the writes; "" : memory
};

struct GuestNetwork {
  std::string interface = "eth0";
  std::vector<std::string> addresses;  // "10.0.2.15/24", "fd00:0:0:2::15/64"
  std::vector<std::string> gateways;   // at most one a family
  std::vector<std::string> dns, search;
  u32 mtu = 0;  // 0: as it is
};

// As the user-mode network (net/user) serves it.
GuestNetwork user_network();

struct GuestMount {  // a share (--share tag=) at a guest's path
  std::string tag, path;
  bool read_only = false;
};

struct GuestDisk {  // a block device at a guest's path
  std::string device, type, path;
  bool read_only = false;
};

struct GuestSecret {
  std::string name;   // a file's name in /run/secrets, or a variable's
  std::string owner;  // user spelled as RunConfig::user; "" : root
  std::string value;  // any bytes; no zero byte in a variable's
  bool environment = false;
};

// A Unix socket in the guest; each connection to it becomes one to the host's `SOCKET_port`, where
// something must listen (a symbolic link from `SOCKET_port` to the real socket is enough).
struct GuestForward {
  std::string path;
  u32 port = 0;
  std::string owner;
};

struct GuestService {
  enum class Restart : u8 { kNever, kOnFailure, kAlways };
  std::string name;
  RunConfig program;
  Restart restart = Restart::kNever;
  bool main = false;    // its end ends the machine
  int stop_signal = 0;  // what asks it to end; 0: SIGTERM
  bool init = false;    // runs to its end before the services behind it and before READY; a failure
                        // fails the boot
};

struct GuestSetup {
  GuestRoot root;
  std::string hostname;
  std::vector<GuestNetwork> networks;
  std::vector<GuestMount> mounts;
  std::vector<GuestDisk> disks;
  std::vector<GuestSecret> secrets;
  std::vector<std::string> environment;  // NAME=value, a default for every program
  std::vector<GuestForward> forwards;
  std::vector<std::string> folders;  // absolute; made where they are missing
  std::vector<GuestService> services;
  u64 time_ns = 0;  // since 1970 UTC; 0: the guest's clock stays as it is
};

// SETUP frames in the order in which the guest applies them.
Result<std::vector<u8>> encode_setup(const GuestSetup& setup);

// One SETUP payload each, for requests to a running machine.
Result<std::vector<u8>> encode_mount(const GuestMount& mount);
Result<std::vector<u8>> encode_unmount(const std::string& path);
Result<std::vector<u8>> encode_disk(const GuestDisk& disk);
Result<std::vector<u8>> encode_secret(const GuestSecret& secret);
Result<std::vector<u8>> encode_forward(const GuestForward& forward);
Result<std::vector<u8>> encode_network(const GuestNetwork& network);
Result<std::vector<u8>> encode_time(u64 time_ns);

}  // namespace smol::machines
