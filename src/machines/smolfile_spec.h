// From a Smolfile to a machine's spec: what `-s` gives, before the command line has its say.
#pragma once

#include "image/smolfile/smolfile.h"
#include "machines/spec.h"

namespace smol::machines {

// Everything of the Smolfile, and of its [dev], that concerns a machine on this host; the image is
// left as it is named. Errors begin with FILE:LINE:COLUMN. Reads the host's folders that are
// shared.
Result<> apply_smolfile(const image::Smolfile& file, MachineSpec& spec);
// The same for a machine that is packed: [artifact] in the place of [dev], nothing of this host.
// Where the host's directories would be mounted are folders of the guest.
Result<> apply_smolfile_packed(const image::Smolfile& file, MachineSpec& spec);

}  // namespace smol::machines
