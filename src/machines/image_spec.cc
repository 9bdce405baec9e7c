#include "machines/image_spec.h"

namespace smol::machines {

Words program_words(const ProgramChoice& choice, const Words& entrypoint, const Words& command) {
  Words out = choice.entrypoint.value_or(entrypoint);
  const Words& rest = !choice.words.empty() ? choice.words
                      : choice.command      ? *choice.command
                      : choice.entrypoint   ? Words{}
                                            : command;
  out.insert(out.end(), rest.begin(), rest.end());
  return out;
}

}  // namespace smol::machines
