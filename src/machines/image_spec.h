// What program a machine runs, and with what, when its root is an image: the image's configuration
// under what the user said (docs/images.md).
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "image/oci/documents.h"
#include "machines/spec.h"

namespace smol::machines {

using Words = std::vector<std::string>;

// What the user said about the program; what is not said is the image's.
struct ProgramChoice {
  std::optional<Words> entrypoint = {}, command = {};  // of a Smolfile, or --entrypoint
  Words words = {};                                    // behind `--`: instead of any command

  bool explicit_program() const { return entrypoint || command || !words.empty(); }
};

// ENTRYPOINT and CMD as docker has them: words replace CMD, ENTRYPOINT stays in front of them; an
// entry point that the user names takes the image's CMD away.
// What an image says, under what spec has already: environment, user, working directory, labels,
// stop signal, health command, ports that it serves, folders that it wants.
void apply_image(const image::ImageConfig& config, MachineSpec& spec);

// "SIGQUIT", "QUIT", "3", "RTMIN+3": a number; nullopt for what is no signal, and for "".
std::optional<int> signal_number(std::string_view text);

Words program_words(const ProgramChoice& choice, const Words& entrypoint, const Words& command);

}  // namespace smol::machines
