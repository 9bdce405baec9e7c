// Options that several verbs share, from an invocation to typed values.
#pragma once

#include "cli.h"
#include "machines/image_spec.h"
#include "machines/machines.h"
#include "machines/smolfile_spec.h"

namespace smolvm {

// -I, --rootfs or spec.image (from a Smolfile): sets the root file system, what an image says of
// its program and its surroundings, and the main program (images.cc). An image may be pulled here.
// Gives how many words of the program are the entry point; the others are its command.
Result<std::size_t> choose_root(const Invocation& invocation, smol::machines::ProgramChoice choice,
                                smol::machines::MachineSpec& spec);
// What `create` and `run` are given: over the defaults a Smolfile, over that the command line.
// entrypoint: how many words of its program are the entry point.
Result<smol::machines::MachineSpec> spec_of(const Invocation& invocation, const std::string& name,
                                            std::size_t* entrypoint = nullptr);
// --memory-max, --cpu-max, --pids-max; what is not given stays as it is now.
smol::machines::HostLimits limits_of(const Invocation& invocation,
                                     const smol::machines::HostLimits& now);
// -v and -p, -e of `update` and others are read by the same functions.
Result<std::vector<smol::machines::Volume>> volumes_of(const Invocation& invocation);
Result<std::vector<smol::machines::Port>> ports_of(const Invocation& invocation);
// --add-host and --host-access, on top of what the network has.
smol::Result<> add_host_options(const Invocation& invocation, smol::machines::Network& network);

}  // namespace smolvm
