// Where machines live on this host: `$SMOLVM_DATA_DIR`, else `$XDG_DATA_HOME/smolvm`, else
// `~/.local/share/smolvm`. Folders are made on first use, for their owner alone.
#pragma once

#include <string>

#include "base/result.h"

namespace smol::machines {

Result<std::string> data_dir();
std::string database_path(const std::string& data);
std::string machine_dir(const std::string& data, const std::string& name);

Result<> make_folders(const std::string& path);  // mkdir -p, 0700
// A folder and all below it; symbolic links are removed, not followed. Missing: no error.
Result<> remove_tree(const std::string& path);
// Bytes that a file or a folder's files occupy on disk (not their lengths).
unsigned long long disk_usage(const std::string& path);

// A folder for the machine's sockets: its own, or one under the runtime folder where a path there
// would be longer than a socket's address can hold (107 bytes; unix(7)).
Result<std::string> socket_dir(const std::string& data, const std::string& name);

}  // namespace smol::machines
