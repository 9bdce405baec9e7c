// Keys and signatures of machine files, in minisign's formats.
#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "cli.h"
#include "image/container/writer.h"
#include "pack.h"
#include "password.h"

namespace smolvm {

using namespace smol;

Result<> write_new_file(const std::string& path, const std::string& text, mode_t mode) {
  TRY_ASSIGN(const base::UniqueFd file, base::open_file(path, O_WRONLY | O_CREAT | O_EXCL, mode));
  auto written =
      base::write_all(file.get(), {reinterpret_cast<const u8*>(text.data()), text.size()}, path);
  if (!written) unlink(path.c_str());
  return written;
}

Result<int> run_pack_keygen(const Invocation& invocation) {
  const std::string public_path = invocation.text("public", "smolvm.pub");
  const std::string secret_path = invocation.text("secret", "smolvm.key");
  // Before a password is asked for and a second is spent on it.
  for (const std::string& path : {public_path, secret_path})
    if (access(path.c_str(), F_OK) == 0) return fail("{} is there already", path);
  std::optional<std::string> password;
  if (!invocation.has("no-password")) {
    TRY_ASSIGN(password, read_password(invocation.text("password-file"),
                                       "Password for the new secret key", true));
  }
  const image::SecretKey key = image::SecretKey::generate();
  TRY_ASSIGN(const std::string secret, key.to_file(password));
  TRY(write_new_file(secret_path, secret, 0600));
  if (auto written = write_new_file(public_path, key.public_key().to_file(), 0644); !written) {
    unlink(secret_path.c_str());
    return std::unexpected(written.error());
  }
  std::printf("Secret key: %s (keep it)\nPublic key: %s\n%s\n", secret_path.c_str(),
              public_path.c_str(), key.public_key().to_base64().c_str());
  return 0;
}

Result<int> run_pack_sign(const Invocation& invocation) {
  const std::string& path = invocation.words[0];
  const std::string secret_path = invocation.text("secret", "smolvm.key");
  TRY_ASSIGN(const std::string text, base::read_text_file(secret_path));
  auto guarded = image::SecretKey::needs_password(text);
  if (!guarded) return wrap(guarded.error(), "{}", secret_path);
  std::optional<std::string> password;
  if (*guarded) {
    TRY_ASSIGN(password, read_password(invocation.text("password-file"),
                                       "Password of " + secret_path, false));
  }
  auto key = image::SecretKey::parse(text, password);
  if (!key) return wrap(key.error(), "{}", secret_path);
  TRY(image::sign_file(path, invocation.text("output", path), *key, invocation.text("comment")));
  std::printf("Signed %s by key %s\n", invocation.text("output", path).c_str(),
              image::key_id_text(key->public_key().key_id).c_str());
  return 0;
}

}  // namespace smolvm
