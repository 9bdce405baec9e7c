# BLAKE2b, Ed25519, Argon2id, scrypt and XChaCha20-Poly1305 are libsodium's; zstd compresses sections.
target_link_libraries(smol_image_container PUBLIC /usr/lib/x86_64-linux-gnu/libsodium.a /usr/lib/x86_64-linux-gnu/libzstd.a pthread)
# As for src/api: small before fast; the hot loops are in the two libraries.
target_compile_options(smol_image_container PRIVATE -Oz)
