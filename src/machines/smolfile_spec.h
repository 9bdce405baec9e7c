// From a Smolfile to a machine's spec: what `-s` gives, before the command line has its say.
#pragma once

#include "image/smolfile/smolfile.h"
#include "machines/spec.h"

namespace smol::machines {

// Everything of the Smolfile, and of its [dev], that concerns a machine on this host; the image is
// left as it is named. Errors begin with FILE:LINE:COLUMN. Reads the host's folders that are
// shared.
Result<> apply_smolfile(const image::Smolfile& file, MachineSpec& spec);

// `later` over `earlier`: entries of the same name are replaced where they stand, others follow.
void merge_environment(std::vector<std::string>& earlier, const std::vector<std::string>& later);

}  // namespace smol::machines
